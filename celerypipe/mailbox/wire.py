"""How messages and results stand in Redis: an entry of a mailbox, an entry of a reply stream.

Fixed heads packed by struct, then names and bytes; with keys a signature behind each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct, error
from typing import Any, NamedTuple

from celerypipe.mailbox.onward import LONGEST
from celerypipe.redis.connection import Command
from celerypipe.redis.signing import SIGNATURE, Signer

#: A message on the wire: its number in the run, which try, whether it is run by itself, and the length of the name of
#: its blob, which follows; then its bytes.
ENTRY = Struct("<QI?H")
#: A result: number and try of its message, kind, seconds it waited in the mailbox, ``update`` ran, and the node warmed
#: up for it, whether the blob of its message may still be mapped, the number of the last line that was logged for its
#: run there, lengths of its blob's name, of its bytes, of what was printed and of the name of the activation that it
#: was taken over from; then all four, and what went on.
RESULT_HEAD = Struct("<QIcddd?IHIIH")
#: Bytes that have the head of either.
HEAD = max(ENTRY.size, RESULT_HEAD.size)

#: Kinds of reply: the messages that came out; a failure; "its blob is gone, send it again"; a result that holds unless
#: another one comes while the node it names is at work; how many messages, or what else, were refused; "nobody began it
#: here, send it again".
RESULT, FAILURE, LOST_BLOB, NOTE, REFUSED, UNBEGUN = b"r", b"f", b"l", b"n", b"x", b"u"
#: What a lost blob's reply says of one whose bytes are there and not those that were signed.
ALTERED = b"altered"
#: What the reply of one that was given back says where its batch brought nothing: nobody knows whose fault that was.
SUSPECT = b"suspect"
#: The number that no message has.
NOBODY = (1 << 64) - 1


class Entry(NamedTuple):
    """A message in a mailbox: the entry's id, its number in the run, which try, and its bytes or where they are.

    ``holder``: the activation that it was taken over from. ``alone``: it is run by itself, and not in a batch.
    """

    id: str
    sequence: int
    attempt: int
    blob: str
    data: bytes
    holder: str = ""
    alone: bool = False


class Reply(NamedTuple):
    """A result on its way back: to which message it belongs, what kind, timings, and bytes or a blob.

    ``holder``: the activation that its message was taken over from, if it was.
    """

    sequence: int
    attempt: int
    kind: bytes
    waited: float
    ran: float
    kept: bool
    blob: str
    data: bytes
    onward: bytes
    console: bytes = b""
    warmed: float = 0.0
    logged: int = 0
    holder: str = ""


class Published(NamedTuple):
    """What one activation published together: an entry's id in the reply stream, the node, its name, the results.

    ``refused``: so much of it cannot be read, or is not signed. ``declined``: instead of all that a worker says no
    (:mod:`celerypipe.mailbox.bell`).
    """

    id: bytes
    node: str
    worker: str
    results: list[Reply]
    refused: int = 0
    declined: bytes = b""


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
    #: What the next nodes made of what came out, see :mod:`celerypipe.mailbox.onward`.
    onward: bytes = b""
    #: What was printed, see :mod:`celerypipe.message.console`.
    console: bytes = b""
    #: Seconds that the node warmed up before it; they are no part of the other times.
    warmed: float = 0.0
    #: The number of the last line that this process logged for the run, see :mod:`celerypipe.mailbox.logs`.
    logged: int = 0

    def packed(self) -> bytes:
        """Return it as it stands in a reply."""
        entry, kind, waited, ran, blob, data, _, kept, onward, console, warmed, logged = self
        name, holder = blob.encode(), entry.holder.encode()
        lengths = len(name), len(data), len(console), len(holder)
        times = waited, ran, warmed
        said = kept() is not None, logged & 0xFFFFFFFF
        head = RESULT_HEAD.pack(entry.sequence, entry.attempt, kind, *times, *said, *lengths)
        return b"%b%b%b%b%b%b" % (head, name, data, console, holder, onward)


#: The field of an entry in a reply stream by which a worker says that it cannot serve; it is so in every protocol.
DECLINED = b"declined"
#: What runners themselves write into a reply stream.
_EMPTY = [b"n", b""]


def storing(answers: Sequence[Answer]) -> list[Command]:
    """Return the commands that store the blobs of results."""
    return [command for answer in answers for command in answer.storing]


def packed_entry(sequence: int, attempt: int, blob: str, data: bytes, *, alone: bool = False) -> bytes:
    """Return a message as it stands in a mailbox."""
    name = blob.encode()
    return b"%b%b%b" % (ENTRY.pack(sequence, attempt, alone, len(name)), name, data)


def entries_in(items: Sequence[Any]) -> list[Entry]:
    """Read mailbox entries, without those that celerypipe did not write."""
    return [entry for item in items if (entry := as_entry(item))]


def as_entry(item: Sequence[Any], signer: Signer | None = None) -> Entry | None:
    """Read a mailbox entry; None for one that celerypipe did not write, or did not sign if there is a signer."""
    entry_id, fields, *holder = item
    try:
        _, raw = fields
        if signer is not None and not signer.verifies(raw):
            return None
        end = None if signer is None else -SIGNATURE
        sequence, attempt, alone, length = ENTRY.unpack_from(raw)
        start = ENTRY.size + length
        blob, held_by = raw[ENTRY.size : start].decode(), holder[0].decode() if holder else ""
        return Entry(entry_id.decode(), sequence, attempt, blob, raw[start:end], held_by, alone)
    except (ValueError, TypeError, error):
        return None


def as_published(item: Sequence[Any], signer_of: Callable[[str], Signer] | None = None) -> Published | None:
    """Read an entry of a reply stream; None for what a runner writes there itself.

    ``signer_of`` a node: what is not signed is left out, and counted; so is what cannot be read.
    """
    entry_id, fields = item
    try:
        _, node, _, worker, *rest = fields
        if signer_of is None:
            return Published(entry_id, node.decode(), worker.decode(), [_result(raw) for raw in rest[1::2]])
        signer = signer_of(node.decode()).within(worker.decode())
        signed = [_result(raw, -SIGNATURE) for raw in rest[1::2] if signer.verifies(raw)]
        return Published(entry_id, node.decode(), worker.decode(), signed, len(rest[1::2]) - len(signed))
    except (ValueError, TypeError, error):
        if fields == _EMPTY:
            return None
        declined = fields[1] if len(fields) == 2 and fields[0] == DECLINED else b""
        return Published(entry_id, "", "", [], 0 if declined else 1, declined)


def _result(raw: bytes, stop: int | None = None) -> Reply:
    sequence, attempt, kind, waited, ran, warmed, kept, logged, *lengths = RESULT_HEAD.unpack_from(raw)
    name, size, printed, held = lengths
    if not (0.0 <= waited <= LONGEST and 0.0 <= ran <= LONGEST and 0.0 <= warmed <= LONGEST):
        raise ValueError(f"{waited} s, {ran} s and {warmed} s are no times")
    start = RESULT_HEAD.size + name
    end = start + size
    last = end + printed + held
    blob = raw[RESULT_HEAD.size : start].decode()
    printed_bytes, holder = raw[end : end + printed], raw[end + printed : last].decode()
    times = waited, ran, kept
    data, onward = raw[start:end], raw[last:stop]
    return Reply(sequence, attempt, kind, *times, blob, data, onward, printed_bytes, warmed, logged, holder)


#: Errands are numbered from here, so that they are nobody's turn.
ERRANDS = 1 << 62
