"""The protocol both wings speak: mailbox, bell, reply stream.

A *mailbox* is a stream with one consumer group; a *bell* is a lease, one key per slot, whose value is ``r:<token>``
(rung) or the name of the activation that holds it. A consumer's name ends in ``.<slot>``, so that a script can look
up its lease. A *reply stream* carries the results of one run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from celerypipe.mailbox import scripts
from celerypipe.mailbox.wire import HEAD, NOBODY, REFUSED, Answer, Entry, as_entry, entries_in, storing
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.redis.script import call, together
from celerypipe.redis.signing import Keyring, Signer, refused

logger = logging.getLogger(__name__)


class Beginning(NamedTuple):
    """What an activation begins with: the node's record, whether the run goes on, Redis' clock, what the dead left,
    if that is nothing, the first messages, and how many orders there are (:mod:`celerypipe.mailbox.orders`)."""

    record: bytes | None
    running: bool
    now: float
    claimed: list[Entry]
    first: list[Entry]
    orders: int = 0


#: What a holder sees when it looks around: its bell is another's, all is well, its run is over, nobody waits any more
#: for the entry it works on.
BellSeen = Literal["lost", "held", "over", "withdrawn"]
SEEN: tuple[BellSeen, ...] = ("lost", "held", "over", "withdrawn")


def seen_in(answer: int) -> tuple[BellSeen, int]:
    """Return what a holder sees, and how many orders there are, of the answer to :meth:`Mailbox.refreshing`."""
    return SEEN[answer % 8], answer // 8


#: Stands in a reply that concerns no message.
_NOTHING = Entry("", NOBODY, 0, "", b"")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Names of one warped node's keys in one run, and what both sides do with them. It holds no connection.

    ``sending``, ``ringing``, ``taking`` and the like return commands, to be asked by :mod:`celerypipe.redis.script`:
    who serves many nodes asks for all of them in one round trip.
    ``keyring``: all that is written is signed, and what is read and not signed is refused.
    """

    run: str
    node: str
    keyring: Keyring | None = field(default=None, repr=False, compare=False)
    names: keys.Names = keys.USUAL

    @property
    def stream(self) -> str:
        return self.names.mailbox(self.run, self.node)

    @property
    def bell(self) -> str:
        return self.names.bell(self.run, self.node)

    @property
    def reply(self) -> str:
        return self.names.reply(self.run)

    def beside(self, node: str) -> Mailbox:
        """Return that of another node of the run."""
        return Mailbox(self.run, node, self.keyring, self.names)

    def signer(self, kind: str) -> Signer | None:
        """Who signs messages, results or records of this node; None: nobody does."""
        return None if self.keyring is None else self.keyring.signer(kind, self.run, self.node)

    def writing_record(self, record: bytes) -> Command:
        """Return the command that writes what activations are told about the node."""
        signer = self.signer("record")
        said = signer.sign(record) if signer else record
        return ("SET", self.names.node(self.run, self.node), said, "PX", keys.DATA_TTL)

    def read_record(self, record: bytes) -> bytes:
        """Return what the runner wrote about the node; :class:`BadSignature` if somebody else did."""
        signer = self.signer("record")
        return record if signer is None else signer.unsign(record)

    # -- the runner's side ------------------------------------------------------------------------------------------

    def make(self, client: Client) -> None:
        """Make the stream and its group where they are missing."""
        made(client.together(*self.making()))

    def making(self) -> list[Command]:
        """Return the commands that do it; :func:`made` takes their answers."""
        return [
            ("XGROUP", "CREATE", self.stream, keys.GROUP, "0", "MKSTREAM"),
            ("PEXPIRE", self.stream, keys.DATA_TTL),
        ]

    def sending(self, entries: Sequence[bytes], *, token: str, wanted: int, ttl: int) -> Command:
        """Return the command that appends messages as :func:`packed_entry` makes them.

        It answers entry ids and the slots that were rung; None: the mailbox is gone (emptied Redis, eviction), nothing
        was appended.
        """
        if (signer := self.signer("message")) is not None:
            entries = [signer.sign(entry) for entry in entries]
        return scripts.SEND.command((self.stream, self.bell), token, ttl, wanted, keys.DATA_TTL, *entries)

    def ringing(self, *, token: str, wanted: int, ttl: int, force: bool = False) -> Command:
        """Return the command that rings the slots that have no bell; it answers with those that were rung."""
        return scripts.RING.command((self.bell,), token, ttl, wanted, int(force))

    def withdraw(self, client: Client, ids: Sequence[bytes | str]) -> set[bytes]:
        """Take messages back: nobody starts them, and a result of them is refused. Return those that had no answer."""
        return set(scripts.WITHDRAW(client, (self.stream,), keys.GROUP, *ids)) if ids else set()

    def still(self, client: Client, ids: Sequence[str]) -> set[str]:
        """Return those of the entries that were not withdrawn."""
        found = client.together(*[("XRANGE", self.stream, each, each) for each in ids])
        return {each for each, there in zip(ids, found, strict=True) if there}

    def given_ids(self, client: Client, most: int) -> set[bytes]:
        """Return the ids of the entries that some activation was given and has not answered for."""
        found: Any = client.xpending_range(self.stream, keys.GROUP, min="-", max="+", count=max(1, most))
        return {each["message_id"] for each in found}

    def asking_given(self) -> Command:
        """Return the command whose answer :func:`given_in` reads."""
        return ("XPENDING", self.stream, keys.GROUP)

    # -- the worker's side ------------------------------------------------------------------------------------------

    def taking(self, slot: int, consumer: str) -> Command:
        """Return the command that takes a bell; it answers 1 if that was absent or rung, 0 if another holds it."""
        return scripts.TAKE.command((f"{self.bell}{slot}",), consumer, keys.HELD_TTL)

    def refreshing(self, slot: int, consumer: str, entry: str) -> Command:
        """Return the command that refreshes a held bell and looks around; ``entry``: what is worked on, or empty."""
        names = (f"{self.bell}{slot}", self.names.run(self.run), self.stream, self.names.orders(self.run))
        return scripts.REFRESH.command(names, consumer, keys.HELD_TTL, entry)

    def begin(self, client: Client, slot: int, consumer: str, *, most: int, first: int) -> Beginning | None:
        """Take the bell and see what there is, in one round trip; None when another activation holds it, or shall.

        ``most``: messages of the dead that it takes over; ``first``: new ones that it takes if there are none of those.
        """
        keys_of_all = (
            f"{self.bell}{slot}",
            self.stream,
            self.bell,
            self.names.node(self.run, self.node),
            self.names.run(self.run),
            self.names.orders(self.run),
        )
        answer = scripts.BEGIN(client, keys_of_all, keys.GROUP, consumer, most, keys.HELD_TTL, first)
        if answer is None:
            return None
        record, state, seconds, microseconds, claimed, new, orders = answer
        now = int(seconds) + int(microseconds) / 1e6
        old = self.admitted(client, consumer, claimed)
        return Beginning(record, state == b"running", now, old, self.admitted(client, consumer, new), orders)

    def releasing(self, slot: int, consumer: str, *, force: bool) -> Command:
        """Return the command that lets go of the bell.

        It answers 1 when that is still held, since an entry waits that nobody was given; with ``force`` it never is.
        """
        return scripts.RELEASE.command((f"{self.bell}{slot}", self.stream), consumer, keys.GROUP, int(force))

    def handing_back(self, slot: int, consumer: str, token: str) -> Command:
        """Return the command that rings a held bell for the task of this token; it answers 0 if it was lost."""
        return scripts.YIELD.command((f"{self.bell}{slot}",), consumer, token, keys.RUNG_TTL)

    def unring(self, client: Client, slot: int, token: str) -> None:
        """This worker cannot answer: the runner rings again at once, and another one may come."""
        scripts.UNRING(client, (f"{self.bell}{slot}",), token)

    def receive(self, client: Client, consumer: str, count: int, block: int | None) -> list[Entry]:
        """Read new entries; ``block`` in ms, None returns at once. A ResponseError may mean that it is gone."""
        return received(client, [self], consumer, client.call(*reading([self], consumer, count, block))).get(
            self.stream, []
        )

    def claim(self, client: Client, consumer: str, count: int) -> list[Entry]:
        """Take over what dead activations hold."""
        return self.admitted(client, consumer, call(client, self.claiming(consumer, count)))

    def claiming(self, consumer: str, count: int) -> Command:
        """Return the command that does so; what it answers is to be :meth:`admitted`."""
        return scripts.CLAIM.command((self.stream, self.bell), keys.GROUP, consumer, count)

    def admitted(self, client: Client, consumer: str, items: Sequence[Any]) -> list[Entry]:
        """Return the entries; take away those that are refused."""
        signer = self.signer("message")
        if signer is None:
            return entries_in(items)
        read = [(item, as_entry(item, signer)) for item in items]
        if bad := [item[0] for item, entry in read if entry is None and item[1]]:
            self.refuse(client, consumer, "message", bad)
        return [entry for _, entry in read if entry is not None]

    def refused(self, what: str, count: int = 1) -> None:
        """Count in this process what was refused, and say it the first time."""
        where = f"run {self.run} node {self.node}"
        if self.keyring is not None and self.keyring.refusals.add(what, where, count):
            logger.warning("%s", refused(what, where))

    def refuse(self, client: Client, consumer: str, what: str, entries: Sequence[bytes] = ()) -> None:
        """Take entries away that nobody of ours signed, or only say that something else was refused.

        The runner hears of it, so that it counts them too and sends again what somebody put them in the place of.
        """
        if self.keyring is None:
            return
        count = max(1, len(entries))
        self.refused(what, count)
        if entries:
            self.withdraw(client, entries)
        said = self.said(consumer, [Answer(_NOTHING, REFUSED, 0.0, 0.0, "", b"%d %b" % (count, what.encode()))])
        fields = ("n", self.node, "w", consumer, "r", *said)
        client.together(("XADD", self.reply, "NOMKSTREAM", "*", *fields))

    def said(self, consumer: str, answers: Sequence[Answer]) -> list[bytes]:
        """Return answers as they stand in a reply, signed as those of this activation."""
        packed = [answer.packed() for answer in answers]
        if (signer := self.signer("result")) is None:
            return packed
        signer = signer.within(consumer)
        return [signer.sign(each) for each in packed]

    def publish(self, client: Client, consumer: str, answers: Sequence[Answer]) -> int | None:
        """Publish results; return how many replies wait for the runner. None: the run is over."""
        commands = (*storing(answers), self.publishing(consumer, answers))
        waiting: int | None = accepted(together(client, *commands))[-1]
        return waiting

    def publishing(self, consumer: str, answers: Sequence[Answer]) -> Command:
        """Return the command that publishes results whose blobs are stored; it answers as :meth:`publish` does."""
        flat: list[Any] = []
        for answer, said in zip(answers, self.said(consumer, answers), strict=True):
            flat += (answer.entry.id, said)
        return scripts.PUBLISH.command((self.stream, self.reply), keys.GROUP, consumer, self.node, *flat)

    def note(self, client: Client, consumer: str, answer: Answer) -> None:
        """Tell the runner how far a message got that is still being worked on; it stays pending with this consumer."""
        streams = (self.stream, self.reply)
        said = self.said(consumer, [answer])
        noting = scripts.NOTING.command(streams, keys.GROUP, consumer, self.node, answer.entry.id, *said)
        accepted(together(client, *storing([answer]), noting))


def made(answers: Sequence[Any]) -> None:
    """Raise what was refused; that a group is there is none."""
    accepted([each for each in answers if not (isinstance(each, Exception) and "BUSYGROUP" in str(each))])


def waiting(client: Client, mailboxes: Sequence[Mailbox]) -> list[dict[tuple[int, int], str]]:
    """Return what is in each mailbox: (sequence, attempt) → entry id; who wrote it is not looked at."""
    found = map(entries_in, heads(client, [mailbox.stream for mailbox in mailboxes]))
    return [{(entry.sequence, entry.attempt): entry.id for entry in entries} for entries in found]


def heads(client: Client, streams: Sequence[str]) -> list[list[Any]]:
    """Return the entries of mailboxes or reply streams with the heads of their messages or results only.

    As many round trips as the longest of them has pages.
    """
    found: list[list[Any]] = [[] for _ in streams]
    left = dict.fromkeys(range(len(streams)), b"-")
    while left:
        asked = [scripts.HEADS.command((streams[place],), start, HEAD) for place, start in left.items()]
        pages = accepted(together(client, *asked))
        for place, (_, some) in zip(left, pages, strict=True):
            found[place] += some
        left = {place: start for place, (start, _) in zip(left, pages, strict=True) if start}
    return found


def dropping(bell: str, consumer: str) -> Command:
    """Return the command that deletes a bell, if it is still this one's."""
    return scripts.DROP.command((bell,), consumer)


def given_in(answer: Any) -> list[int]:
    """Return how many messages each activation holds, of those that hold any."""
    return [int(count) for _, count in answer[3] or ()]


def prolonging(names: keys.Names, run: str, needed: Sequence[str] = (), others: Sequence[str] = ()) -> Command:
    """Return the command that prolongs the lease of a run, and these of its keys.

    It answers what the lease said before (None if it was gone), and 1 if all that is needed was there.
    """
    every = (names.run(run), names.runs, *needed, *others)
    return scripts.PROLONG.command(every, run, keys.RUN_TTL, keys.DATA_TTL, len(needed))


def cancelling(names: keys.Names, run: str) -> Command:
    """Return the command that cancels a run unless it ended by itself; it answers what its lease said before."""
    return scripts.CANCEL.command((names.run(run),), keys.DATA_TTL)


def reading(mailboxes: Sequence[Mailbox], consumer: str, count: int, block: int | None) -> Command:
    """Return the command that reads new entries of several mailboxes, ``count`` of each, to be asked with others."""
    wait = () if block is None else ("BLOCK", block)
    streams = [mailbox.stream for mailbox in mailboxes]
    group = ("GROUP", keys.GROUP, consumer)
    return ("XREADGROUP", *group, "COUNT", count, *wait, "STREAMS", *streams, *[">"] * len(streams))


def received(client: Client, mailboxes: Sequence[Mailbox], consumer: str, answer: Any) -> dict[str, list[Entry]]:
    """Return the entries that :func:`reading` brought, by the name of their stream."""
    found = {stream.decode(): items for stream, items in answer or ()}
    if mailboxes[0].keyring is None:
        return {stream: entries_in(items) for stream, items in found.items()}
    return {box.stream: box.admitted(client, consumer, found.get(box.stream, ())) for box in mailboxes}


def is_missing(error: Exception) -> bool:
    """Does Redis say that a mailbox is gone? Redis 7.0 has another word for it where somebody waits for its entries."""
    return any(word in str(error) for word in ("NOGROUP", "UNBLOCKED"))
