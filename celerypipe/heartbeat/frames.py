"""How lines stand in the pipe from a worker's processes to the one that gives its heartbeat and sends them on.

A frame is so small that the kernel writes it whole or not at all, however many processes write at one time: its size,
the size of the name of a run, that name (empty: the worker's own), and a line, which is only handed on here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def frame(run: bytes, line: bytes) -> bytes:
    """Return a line as it stands in the pipe."""
    return b"%b%b%b%b" % ((len(run) + len(line) + 1).to_bytes(2, "big"), len(run).to_bytes(1, "big"), run, line)


class Frames:
    """Takes frames out of what was read, of which the last may not be whole."""

    def __init__(self) -> None:
        self._rest = b""

    def read(self, found: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield run and line of each frame that is whole with these bytes."""
        data = self._rest + found
        place = 0
        while len(data) - place >= 3:
            end = place + 2 + int.from_bytes(data[place : place + 2], "big")
            if end > len(data):
                break
            run = place + 3 + data[place + 2]
            yield data[place + 3 : run], data[run:end]
            place = end
        self._rest = data[place:]
