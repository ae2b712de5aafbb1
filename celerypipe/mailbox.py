"""The protocol both wings speak: mailbox, bell, reply stream.

A *mailbox* is a stream with one consumer group; a *bell* is a lease, one key per slot, whose value is ``r:<token>``
(rung) or the name of the activation that holds it. A consumer's name ends in ``.<slot>``, so that a script can look
up its lease. A *reply stream* carries the results of one run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct, error
from typing import Any, NamedTuple

import redis

from celerypipe import keys
from celerypipe.connection import Client, Command, accepted
from celerypipe.scripts import BEGIN, CLAIM, NOTING, PUBLISH, RELEASE, RING, SEND, TAKE, YIELD, together

#: A message on the wire: its number in the run, which try, and the length of the name of its blob, which follows;
#: then its bytes.
ENTRY = Struct("<QIH")
#: A result: number and try of its message, kind, seconds it waited in the mailbox and ``update`` ran, whether the blob
#: of its message may still be mapped, lengths of its blob's name and of its bytes; then both, and what went on.
RESULT_HEAD = Struct("<QIcdd?HI")

#: Kinds of reply: the messages that came out; a failure; "its blob is gone, send it again"; a result that holds unless
#: another one comes while the node it names is at work.
RESULT, FAILURE, LOST_BLOB, NOTE = b"r", b"f", b"l", b"n"


class Entry(NamedTuple):
    """A message in a mailbox: the entry's id, its number in the run, which try, and its bytes or where they are."""

    id: str
    sequence: int
    attempt: int
    blob: str
    data: bytes


class Reply(NamedTuple):
    """A result on its way back: to which message it belongs, what kind, timings, and bytes or a blob."""

    sequence: int
    attempt: int
    kind: bytes
    waited: float
    ran: float
    kept: bool
    blob: str
    data: bytes
    onward: bytes


class Published(NamedTuple):
    """What one activation published together: an entry's id in the reply stream, the node, its name, the results."""

    id: bytes
    node: str
    worker: str
    results: list[Reply]


class Beginning(NamedTuple):
    """What an activation begins with: the node's record, whether the run goes on, Redis' clock, what the dead left,
    and if that is nothing, the first messages."""

    record: bytes | None
    running: bool
    now: float
    claimed: list[Entry]
    first: list[Entry]


class Answer(NamedTuple):
    """What an activation publishes for one entry, with the commands that store its blob just before."""

    entry: Entry
    kind: bytes
    waited: float
    ran: float
    blob: str
    data: bytes
    storing: Sequence[Command] = ()
    #: Returns None when nothing in this process maps the blob of the message any more.
    kept: Callable[[], object] = bool
    #: What the next nodes made of what came out, see :mod:`celerypipe.onward`.
    onward: bytes = b""

    def packed(self) -> bytes:
        """Return it as it stands in a reply."""
        entry, kind, waited, ran, blob, data, _, kept, onward = self
        name = blob.encode()
        lengths = len(name), len(data)
        head = RESULT_HEAD.pack(entry.sequence, entry.attempt, kind, waited, ran, kept() is not None, *lengths)
        return b"%b%b%b%b" % (head, name, data, onward)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Names of one warped node's keys in one run, and what both sides do with them. It holds no connection."""

    run: str
    node: str

    @property
    def stream(self) -> str:
        return keys.mailbox(self.run, self.node)

    @property
    def bell(self) -> str:
        return keys.bell(self.run, self.node)

    # -- the runner's side ------------------------------------------------------------------------------------------

    def make(self, client: Client) -> None:
        """Make the stream and its group where they are missing."""
        try:
            client.xgroup_create(self.stream, keys.GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        client.pexpire(self.stream, keys.DATA_TTL)

    def send(
        self, client: Client, entries: Sequence[bytes], *, token: str, wanted: int, ttl: int
    ) -> tuple[list[bytes], list[int]] | None:
        """Append messages as :func:`packed_entry` makes them; return entry ids and the slots that were rung.

        None: the mailbox is gone (emptied Redis, eviction), nothing was appended.
        """
        answer = SEND(client, *self.sending(entries, token=token, wanted=wanted, ttl=ttl))
        return None if answer is None else (answer[0], answer[1])

    def sending(self, entries: Sequence[bytes], *, token: str, wanted: int, ttl: int) -> tuple[Any, ...]:
        """Return the keys and arguments of SEND."""
        return ((self.stream, self.bell), token, ttl, wanted, keys.DATA_TTL, *entries)

    def ring(self, client: Client, *, token: str, wanted: int, ttl: int, force: bool = False) -> list[int]:
        """Ring the slots that have no bell; return those that were rung."""
        rung: list[int] = RING(client, (self.bell,), token, ttl, wanted, int(force))
        return rung

    def withdraw(self, client: Client, ids: Sequence[bytes | str]) -> None:
        """Take messages back: nobody starts them, and a result of them is refused."""
        if ids:
            client.xack(self.stream, keys.GROUP, *ids)
            client.xdel(self.stream, *ids)

    def still(self, client: Client, ids: Sequence[str]) -> set[str]:
        """Return those of the entries that were not withdrawn."""
        found = client.together(*[("XRANGE", self.stream, each, each) for each in ids])
        return {each for each, there in zip(ids, found, strict=True) if there}

    def waiting(self, client: Client) -> dict[tuple[int, int], str]:
        """Return what is in the mailbox: (sequence, attempt) → entry id. Bodies travel too; this is for audits."""
        found = client.call("XRANGE", self.stream, "-", "+")
        return {(entry.sequence, entry.attempt): entry.id for entry in map(as_entry, found) if entry}

    def given_ids(self, client: Client, most: int) -> set[bytes]:
        """Return the ids of the entries that some activation was given and has not answered for."""
        found: Any = client.xpending_range(self.stream, keys.GROUP, min="-", max="+", count=max(1, most))
        return {each["message_id"] for each in found}

    def given(self, client: Client) -> list[int]:
        """Return how many messages each activation holds, of those that hold any."""
        consumers = client.call("XPENDING", self.stream, keys.GROUP)[3]
        return [int(count) for _, count in consumers or ()]

    # -- the worker's side ------------------------------------------------------------------------------------------

    def take(self, client: Client, slot: int, consumer: str) -> bool:
        """Take the bell of a slot: yes when it is absent or rung, no when another activation holds it."""
        return bool(TAKE(client, *self.taking(slot, consumer)))

    def taking(self, slot: int, consumer: str) -> tuple[Any, ...]:
        """Return the keys and arguments of TAKE."""
        return (f"{self.bell}{slot}",), consumer, keys.HELD_TTL

    def begin(self, client: Client, slot: int, consumer: str, *, most: int, first: int) -> Beginning | None:
        """Take the bell and see what there is, in one round trip; None when another activation holds it.

        ``most``: messages of the dead that it takes over; ``first``: new ones that it takes if there are none of those.
        """
        keys_of_all = (f"{self.bell}{slot}", self.stream, self.bell, keys.node(self.run, self.node), keys.run(self.run))
        answer = BEGIN(client, keys_of_all, keys.GROUP, consumer, most, keys.HELD_TTL, first)
        if answer is None:
            return None
        record, state, seconds, microseconds, claimed, new = answer
        now = int(seconds) + int(microseconds) / 1e6
        return Beginning(record, state == b"running", now, entries_in(claimed), entries_in(new))

    def release(self, client: Client, slot: int, consumer: str, *, force: bool) -> bool:
        """Let go of the bell; False (and still held) when an entry waits that nobody was given, unless ``force``."""
        return bool(RELEASE(client, (f"{self.bell}{slot}", self.stream), consumer, keys.GROUP, int(force)) != 1)

    def hand_back(self, client: Client, slot: int, consumer: str, token: str) -> bool:
        """Turn a held bell into a rung one, for the activation that comes next; False when it was lost."""
        return bool(YIELD(client, (f"{self.bell}{slot}",), consumer, token, keys.RUNG_TTL))

    def receive(self, client: Client, consumer: str, count: int, block: int | None) -> list[Entry]:
        """Read new entries; ``block`` in ms, None returns at once. A ResponseError NOGROUP: the mailbox is gone."""
        return entries_by_stream(client.call(*reading([self], consumer, count, block))).get(self.stream, [])

    def claim(self, client: Client, consumer: str, count: int) -> list[Entry]:
        """Take over what dead activations hold."""
        return entries_in(CLAIM(client, (self.stream, self.bell), keys.GROUP, consumer, count))

    def publish(self, client: Client, consumer: str, answers: Sequence[Answer]) -> int | None:
        """Publish results; return how many replies wait for the runner. None: the run is over."""
        publishing = PUBLISH.command(*self.publishing(consumer, answers))
        waiting: int | None = accepted(together(client, *storing(answers), publishing))[-1]
        return waiting

    def publishing(self, consumer: str, answers: Sequence[Answer]) -> tuple[Any, ...]:
        """Return the keys and arguments of PUBLISH."""
        flat: list[Any] = []
        for answer in answers:
            flat += (answer.entry.id, answer.packed())
        return (self.stream, keys.reply(self.run)), keys.GROUP, consumer, self.node, *flat

    def note(self, client: Client, consumer: str, answer: Answer) -> None:
        """Tell the runner how far a message got that is still being worked on; it stays pending with this consumer."""
        streams = (self.stream, keys.reply(self.run))
        noting = NOTING.command(streams, keys.GROUP, consumer, self.node, answer.entry.id, answer.packed())
        accepted(together(client, *storing([answer]), noting))


def storing(answers: Sequence[Answer]) -> list[Command]:
    """Return the commands that store the blobs of results."""
    return [command for answer in answers for command in answer.storing]


def packed_entry(sequence: int, attempt: int, blob: str, data: bytes) -> bytes:
    """Return a message as it stands in a mailbox."""
    name = blob.encode()
    return b"%b%b%b" % (ENTRY.pack(sequence, attempt, len(name)), name, data)


def reading(mailboxes: Sequence[Mailbox], consumer: str, count: int, block: int | None) -> Command:
    """Return the command that reads new entries of several mailboxes, ``count`` of each, to be asked with others."""
    wait = () if block is None else ("BLOCK", block)
    streams = [mailbox.stream for mailbox in mailboxes]
    group = ("GROUP", keys.GROUP, consumer)
    return ("XREADGROUP", *group, "COUNT", count, *wait, "STREAMS", *streams, *[">"] * len(streams))


def entries_by_stream(answer: Any) -> dict[str, list[Entry]]:
    """Return the entries that :func:`reading` brought, by the name of their stream."""
    found = {}
    for stream, items in answer or ():
        found[stream.decode()] = entries_in(items)
    return found


def entries_in(items: Sequence[Any]) -> list[Entry]:
    """Read mailbox entries, without those that celerypipe did not write."""
    return [entry for item in items if (entry := as_entry(item))]


def as_entry(item: Sequence[Any]) -> Entry | None:
    """Read a mailbox entry; None for one that celerypipe did not write."""
    entry_id, fields = item
    try:
        _, raw = fields
        sequence, attempt, length = ENTRY.unpack_from(raw)
        start = ENTRY.size + length
        return Entry(entry_id.decode(), sequence, attempt, raw[ENTRY.size : start].decode(), raw[start:])
    except (ValueError, TypeError, error):
        return None


def as_published(item: Sequence[Any]) -> Published | None:
    """Read an entry of a reply stream; None for one that celerypipe did not write."""
    entry_id, fields = item
    try:
        _, node, _, worker, *rest = fields
        return Published(entry_id, node.decode(), worker.decode(), [_result(raw) for raw in rest[1::2]])
    except (ValueError, TypeError, error):
        return None


def _result(raw: bytes) -> Reply:
    sequence, attempt, kind, waited, ran, kept, name, size = RESULT_HEAD.unpack_from(raw)
    start = RESULT_HEAD.size + name
    end = start + size
    blob = raw[RESULT_HEAD.size : start].decode()
    return Reply(sequence, attempt, kind, waited, ran, kept, blob, raw[start:end], raw[end:])
