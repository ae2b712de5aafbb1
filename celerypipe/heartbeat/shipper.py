"""What the processes of a worker log, on its way to Redis: gathered for a moment, some lines together.

Nobody waits for that. While Redis does not answer, the pipe runs full, and who writes to it drops what has no room:
lines are numbered, so that their reader sees how many are missing.
"""

from __future__ import annotations

import os
import time

from celerypipe.heartbeat.frames import Frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Seconds that a line waits for others, and between two times that some are sent.
GATHER, PAUSE = 0.02, 0.1
#: Seconds for which the pipe is left alone once something was in it: to be woken costs who writes to it tens of
#: microseconds a line.
REST = 0.05
#: Bytes of lines that are kept here at most, and that stand in one entry of a stream.
KEPT, ENTRY = 262_144, 8_192


class Shipper:
    """Reads the pipe, and makes commands of what was in it.

    ``plan``: ``fd``, the end of the pipe; ``script``, which appends one entry, given when it was sent, ``head`` (whose
    lines these are), the lines, and ``limits``; ``stream``, the beginning of the names of streams; ``own``, that of the
    worker's. ``key`` and ``place``, of a signature, are empty where nothing is signed.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._frames = Frames()
        self._lines: dict[bytes, list[bytes]] = {}
        self._size = 0
        self._due = float("inf")
        self._sent = self._rest = 0.0
        self._fd: int = plan["fd"]
        os.set_blocking(self._fd, False)

    @property
    def fd(self) -> int:
        """What is to be waited for; -1: nothing, for now or for ever."""
        return self._fd if self.has_room and time.monotonic() >= self._rest else -1

    @property
    def has_room(self) -> bool:
        """May more be read?"""
        return self._fd >= 0 and self._size < KEPT

    def wait(self, now: float) -> float:
        """Return the seconds until something is to be sent, or the pipe to be waited for again."""
        return max(0.0, min(self._due, self._rest if self._rest > now else self._due) - now)

    def is_due(self, now: float) -> bool:
        """Is something to be sent?"""
        return now >= self._due

    def read(self) -> bool:
        """Take what is in the pipe; return whether there was something."""
        try:
            found = os.read(self._fd, 65_536)
        except BlockingIOError:
            return False
        if not found:
            self._fd = -1
        self._rest = time.monotonic() + REST
        for run, line in self._frames.read(found):
            self._lines.setdefault(run, []).append(len(line).to_bytes(2, "big") + line)
            self._size += len(line)
        if self._size and self._due == float("inf"):
            self._due = max(time.monotonic() + GATHER, self._sent + PAUSE)
        return bool(found)

    def commands(self) -> list[list[bytes | None]]:
        """Return the commands that send what is here, which is let go of."""
        plan, at = self._plan, b"%.6f" % time.time()
        found: list[list[bytes | None]] = []
        for run, lines in self._lines.items():
            name = run or plan["own"]
            for entry in _entries(lines):
                signed = entry + self._signature(name, at, entry)
                asked = [b"1", plan["stream"] + name, at, plan["head"], signed, *plan["limits"]]
                found.append([b"EVAL", plan["script"], *asked])
        self._lines, self._size, self._due, self._sent = {}, 0, float("inf"), time.monotonic()
        return found

    def _signature(self, name: bytes, at: bytes, entry: bytes) -> bytes:
        """As :class:`celerypipe.redis.signing.Signer` signs."""
        if not self._plan["key"]:
            return b""
        from _blake2 import blake2b  # only where there are keys

        state = blake2b(self._plan["place"], key=self._plan["key"], digest_size=16)
        state.update(b"%d:%b" % (len(name), name))
        state.update(b"%b %b %b" % (at, self._plan["head"], entry))
        return bytes(state.digest())


def _entries(lines: list[bytes]) -> list[bytes]:
    """Put lines together, so many that an entry is not too large."""
    parts: list[list[bytes]] = [[]]
    size = 0
    for line in lines:
        if size + len(line) > ENTRY and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += len(line)
    return [b"".join(part) for part in parts]
