"""What workers log and print, on its way to who reads it: one capped stream a run, and one a worker for the rest.

The processes of a worker write lines into a pipe (:mod:`celerypipe.worker.logs`), and the one that gives its heartbeat
sends them (:mod:`celerypipe.heartbeat.shipper`). An entry has the time when it was sent, by the clock there, and its id
the one by Redis' clock: what lies between the two is by how much that clock is ahead, less what the way took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from celerypipe.mailbox.holder import Process
from celerypipe.message.logs import LogLine
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import SIGNATURE, Keyring, Signer

#: Entries of one read.
READ = 256
#: So many processes are remembered, those that spoke last: workers and their processes come and go while a run goes on.
REMEMBERED = 20_000
#: Seconds by which a clock that seems to be behind is believed more each time: it may have been set.
_LEANS = 0.0001

_APPEND = """
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*', 't', ARGV[1], 'h', ARGV[2], 'l', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
"""


class LogPiece(msgspec.Struct, array_like=True, frozen=True):
    """A line, or a part of one that is long: ``more`` follows. ``number``: of this process and run, from 1 on."""

    number: int
    time: float
    level: int
    pid: int
    stream: str
    logger: str
    thread: str
    node: str
    message: str
    more: bool
    text: str


class _Head(msgspec.Struct, array_like=True, frozen=True):
    worker: str


_ENCODER = msgspec.msgpack.Encoder()
_PIECE = msgspec.msgpack.Decoder(LogPiece)
_HEAD = msgspec.msgpack.Decoder(_Head)

#: The bytes of one piece.
packed = _ENCODER.encode


def shipping(names: keys.Names, process: Process, keyring: Keyring | None, fd: int) -> dict[str, Any]:
    """Return what the process that sends lines has to know; ``fd``: where they come from."""
    key, place = keyring.away("log") if keyring is not None else (b"", b"")
    return {
        "fd": fd,
        "script": _APPEND.encode(),
        "stream": names.log("").encode(),
        "own": str(process).encode(),
        "head": _ENCODER.encode(_Head(str(process))),
        "limits": [b"%d" % keys.LOG_MOST, b"%d" % keys.LOG_TTL],
        "key": key,
        "place": place,
    }


class Skews:
    """By how many seconds the clocks of workers are ahead of Redis', as far as their entries tell."""

    def __init__(self) -> None:
        self._ahead: dict[str, float] = {}

    def ahead(self, worker: str, sent: float, received: float) -> float:
        """See an entry that was sent and received then; the way takes time, so the largest difference is the best."""
        seen = sent - received
        best = self._ahead.pop(worker, seen) - _LEANS
        self._ahead[worker] = best = seen if seen > best or best - seen > 1.0 else best
        if len(self._ahead) > REMEMBERED:
            del self._ahead[next(iter(self._ahead))]
        return best


class Brought(NamedTuple):
    """What one entry brought. ``refused``: nobody of ours wrote it."""

    lines: Sequence[LogLine]
    refused: bool = False


class LogReader:
    """Makes lines of the entries of one stream. ``of``: the run, or the id of the worker."""

    def __init__(self, of: str, keyring: Keyring | None, *, whole: bool) -> None:
        """``whole``: it is read from its beginning, so that the first line of a process has the number 1."""
        self._of = of
        self._signer: Signer | None = None if keyring is None else keyring.signer("log", of)
        self._whole = whole
        self._clocks = Skews()
        #: The last number of each process; who spoke last is last.
        self.numbers: dict[tuple[str, int], int] = {}
        self._begun: dict[tuple[str, int, str], tuple[LogLine, list[str]]] = {}
        #: When the last line of each process was: how far its clock is ahead gets known better from entry to entry.
        self._times: dict[tuple[str, int], float] = {}

    def read(self, item: Sequence[Any]) -> Brought:
        """Read one entry."""
        entry_id, fields = item
        try:
            _, at, _, head, _, body = fields
            if self._signer is not None:
                signed = b"%b %b %b" % (at, head, body)
                if not self._signer.verifies(signed):
                    return Brought((), refused=True)
                body = body[:-SIGNATURE]
            worker = _HEAD.decode(head).worker
            received = int(entry_id.partition(b"-")[0]) / 1000
            ahead = self._clocks.ahead(worker, float(at), received)
            return Brought([line for piece in _pieces(body) for line in self._take(worker, piece, ahead)])
        except (ValueError, TypeError, msgspec.DecodeError, UnicodeDecodeError):
            return Brought((), refused=True)

    def _take(self, worker: str, piece: LogPiece, ahead: float) -> list[LogLine]:
        place = worker, piece.pid
        before = self.numbers.pop(place, 0 if self._whole else piece.number - 1)
        self.numbers[place] = max(before, piece.number)
        if len(self.numbers) > REMEMBERED:
            self._forget(next(iter(self.numbers)))
        dropped = max(0, piece.number - before - 1)
        begun = worker, piece.pid, piece.thread
        found = []
        if begun in self._begun and dropped:
            line, texts = self._begun.pop(begun)
            found.append(replace(line, text="".join(texts)))
        if begun in self._begun:
            self._begun[begun][1].append(piece.text)
        else:
            self._times[place] = at = max(piece.time - ahead, self._times.get(place, 0.0))
            self._begun[begun] = self._line(worker, piece, at, dropped), [piece.text]
        if not piece.more:
            line, texts = self._begun.pop(begun)
            found.append(replace(line, text="".join(texts)))
        return found

    def _forget(self, place: tuple[str, int]) -> None:
        """Keep nothing of a process; should it speak again, nobody knows which of its lines is missing."""
        self._whole = False
        del self.numbers[place]
        self._times.pop(place, None)
        for begun in [each for each in self._begun if each[:2] == place]:
            del self._begun[begun]

    def _line(self, worker: str, piece: LogPiece, at: float, dropped: int) -> LogLine:
        return LogLine(
            time=at,
            text="",
            level=piece.level,
            logger=piece.logger,
            stream=piece.stream,
            host=Process.read(worker).host,
            pid=piece.pid,
            thread=piece.thread,
            worker=worker,
            run=self._of if self._of != worker else "",
            node=piece.node,
            message=piece.message,
            dropped=dropped,
        )


def _pieces(body: bytes) -> list[LogPiece]:
    found = []
    place = 0
    while place < len(body):
        end = place + 2 + int.from_bytes(body[place : place + 2], "big")
        found.append(_PIECE.decode(body[place + 2 : end]))
        place = end
    return found


def following(client: Client, of: str, last: bytes, block: float | None) -> list[Any]:
    """Return up to ``READ`` entries after that one; wait so many seconds for some, with None not at all."""
    waiting = () if block is None else ("BLOCK", int(block * 1000))
    found = client.call("XREAD", "COUNT", READ, *waiting, "STREAMS", client.names.log(of), last)
    return list(found[0][1]) if found else []


def trimmed(client: Client, of: str) -> bool:
    """Is the stream so long that its beginning may be gone?"""
    return int(client.call("XLEN", client.names.log(of))) >= keys.LOG_MOST
