"""The protocol both wings speak: mailbox, bell, reply stream.

A *mailbox* is a stream with one consumer group; a *bell* is a lease, one key per slot, whose value is ``r:<token>``
(rung) or the name of the activation that holds it. A consumer's name ends in ``.<slot>``, so that a script can look
up its lease. A *reply stream* carries the results of one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import redis

from celerypipe import keys
from celerypipe.connection import Client
from celerypipe.scripts import CLAIM, PUBLISH, RELEASE, RING, SEND, TAKE, YIELD

#: Seconds a message waited in the mailbox, and seconds ``update`` ran.
TIMES = Struct("<dd")

#: Kinds of reply: the messages that came out; a failure; "its blob is gone, send it again".
RESULT, FAILURE, LOST_BLOB = b"r", b"f", b"l"


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in a mailbox: the entry's id, its number in the run, which try, and its bytes or where they are."""

    id: str
    sequence: int
    attempt: int
    blob: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """A result on its way back: to which node and message it belongs, what kind, timings, and bytes or a blob."""

    id: bytes
    node: str
    sequence: int
    attempt: int
    kind: bytes
    waited: float
    ran: float
    blob: str
    data: bytes
    worker: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What an activation publishes for one entry."""

    entry: Entry
    kind: bytes
    waited: float
    ran: float
    blob: str
    data: bytes


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
        self, client: Client, entries: Sequence[tuple[int, int, str, bytes]], *, token: str, wanted: int, ttl: int
    ) -> tuple[list[bytes], list[int]] | None:
        """Append (sequence, attempt, blob, data) each; return entry ids and the slots that were rung.

        None: the mailbox is gone (emptied Redis, eviction), nothing was appended.
        """
        flat = [value for entry in entries for value in entry]
        answer = SEND(client, (self.stream, self.bell), token, ttl, wanted, keys.DATA_TTL, *flat)
        return None if answer is None else (answer[0], answer[1])

    def ring(self, client: Client, *, token: str, wanted: int, ttl: int, force: bool = False) -> list[int]:
        """Ring the slots that have no bell; return those that were rung."""
        rung: list[int] = RING(client, (self.bell,), token, ttl, wanted, int(force))
        return rung

    def withdraw(self, client: Client, ids: Sequence[bytes | str]) -> None:
        """Take messages back: nobody starts them, and a result of them is refused."""
        if ids:
            client.xack(self.stream, keys.GROUP, *ids)
            client.xdel(self.stream, *ids)

    def waiting(self, client: Client) -> dict[tuple[int, int], str]:
        """Return what is in the mailbox: (sequence, attempt) → entry id. Bodies travel too; this is for audits."""
        found: Any = client.xrange(self.stream)
        return {(entry.sequence, entry.attempt): entry.id for entry in map(as_entry, found) if entry}

    # -- the worker's side ------------------------------------------------------------------------------------------

    def take(self, client: Client, slot: int, consumer: str) -> bool:
        """Take the bell of a slot: yes when it is absent or rung, no when another activation holds it."""
        return bool(TAKE(client, (f"{self.bell}{slot}",), consumer, keys.HELD_TTL))

    def release(self, client: Client, slot: int, consumer: str, *, force: bool) -> bool:
        """Let go of the bell; False (and still held) when an entry waits that nobody was given, unless ``force``."""
        return bool(RELEASE(client, (f"{self.bell}{slot}", self.stream), consumer, keys.GROUP, int(force)) != 1)

    def hand_back(self, client: Client, slot: int, consumer: str, token: str) -> bool:
        """Turn a held bell into a rung one, for the activation that comes next; False when it was lost."""
        return bool(YIELD(client, (f"{self.bell}{slot}",), consumer, token, keys.RUNG_TTL))

    def receive(self, client: Client, consumer: str, count: int, block: int | None) -> list[Entry]:
        """Read new entries; ``block`` in ms, None returns at once. A ResponseError NOGROUP: the mailbox is gone."""
        answer: Any = client.xreadgroup(keys.GROUP, consumer, {self.stream: ">"}, count=count, block=block)
        return [entry for item in (answer[0][1] if answer else ()) if (entry := as_entry(item))]

    def claim(self, client: Client, consumer: str, count: int) -> list[Entry]:
        """Take over what dead activations hold."""
        taken = CLAIM(client, (self.stream, self.bell), keys.GROUP, consumer, count)
        found = []
        for entry_id, flat in taken:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            if entry := as_entry((entry_id, fields)):
                found.append(entry)
        return found

    def publish(self, client: Client, consumer: str, answers: Sequence[Answer]) -> int | None:
        """Publish results; return how many replies wait for the runner. None: the run is over."""
        flat: list[Any] = []
        for one in answers:
            flat += (
                one.entry.id,
                one.entry.sequence,
                one.entry.attempt,
                one.kind,
                TIMES.pack(one.waited, one.ran),
                one.blob,
                one.data,
            )
        answer = PUBLISH(client, (self.stream, keys.reply(self.run)), keys.GROUP, consumer, self.node, *flat)
        return None if answer is None else int(answer[0])


def as_entry(item: tuple[bytes, dict[bytes, bytes]]) -> Entry | None:
    """Read a mailbox entry; None for one that celerypipe did not write."""
    entry_id, fields = item
    try:
        return Entry(entry_id.decode(), int(fields[b"s"]), int(fields[b"a"]), fields[b"b"].decode(), fields[b"d"])
    except (KeyError, ValueError, TypeError):
        return None


def as_reply(item: tuple[bytes, dict[bytes, bytes]]) -> Reply | None:
    """Read a reply; None for an entry that celerypipe did not write."""
    entry_id, f = item
    try:
        waited, ran = TIMES.unpack(f[b"t"])
        return Reply(
            entry_id,
            f[b"n"].decode(),
            int(f[b"s"]),
            int(f[b"a"]),
            f[b"k"],
            waited,
            ran,
            f[b"b"].decode(),
            f[b"d"],
            f[b"w"].decode(),
        )
    except (KeyError, ValueError, TypeError):
        return None
