"""What a node printed while it worked on one message: the lines, when each of them came, and where that was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from celerypipe.errors import CodecError

#: Where a line went; none: it tells what was left out.
Stream = Literal["stdout", "stderr", ""]

#: Unix times and seconds beyond this are none: somebody else wrote them.
_LONGEST = 1e11


class Line(NamedTuple):
    """A line, with its end; ``at``: seconds since the beginning. The last one may have no end."""

    at: float
    stream: Stream
    text: str


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    started: float
    seconds: float
    cut: int
    lines: Sequence[tuple[float, Stream, str]]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Packed)


@dataclass(frozen=True, slots=True)
class Console:
    """What was printed for one message. ``started`` and ``ended`` are Unix times, by the clock of that machine.

    ``worker``: machine and process; ``cut``: how many characters were left out of the middle, where a line of no stream
    says so.
    """

    lines: tuple[Line, ...] = ()
    started: float = 0.0
    seconds: float = 0.0
    worker: str = ""
    cut: int = 0

    @property
    def ended(self) -> float:
        """When it was through, or broken off."""
        return self.started + self.seconds

    @property
    def text(self) -> str:
        """All of it, as it would stand on a terminal."""
        return "".join(line.text for line in self.lines)

    def of(self, stream: Stream) -> str:
        """Return what went to ``stdout``, or to ``stderr``."""
        return "".join(line.text for line in self.lines if line.stream == stream)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "started": self.started,
            "ended": self.ended,
            "seconds": self.seconds,
            "worker": self.worker,
            "cut": self.cut,
            "lines": [list(line) for line in self.lines],
        }

    def pack(self) -> bytes:
        """Return it as it travels; who reads it knows the worker."""
        return _ENCODER.encode(_Packed(self.started, self.seconds, self.cut, list(self.lines)))


def console_of(data: bytes, worker: str) -> Console | None:
    """Return what :meth:`Console.pack` wrote; None if there is nothing. Raises :class:`CodecError`."""
    if not data:
        return None
    try:
        found = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError(f"malformed console: {error}") from error
    if not all(0.0 <= each <= _LONGEST for each in (found.started, found.seconds, *[at for at, *_ in found.lines])):
        raise CodecError("malformed console: times that are none")
    lines = tuple(Line(*line) for line in found.lines)
    return Console(lines, found.started, found.seconds, worker, found.cut)
