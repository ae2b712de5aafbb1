"""By when each process of a worker has to let go of its interpreter lock: a table in memory, a line each.

Code in C that never lets go of that lock stops all threads of its process, and with them everything in it that could
notice. The processes write here what they are at, and that Python runs in them; the monitor reads, which shares no lock
with them. Where the system has no such memory there is no table, and nobody is ended.
"""

from __future__ import annotations

import mmap
import os
import struct

#: Number of the process, seconds of grace, by when what is at work has to end (0: nothing is, or nobody says), and when
#: Python ran there last, both by the monotonic clock.
LINE = struct.Struct("=qddd")
LINES = 4096
SIZE = LINE.size * LINES
#: Lines that a process looks at for one of its own, from the one with its number on.
TRIES = 16
_TIMES = 16


class Deadline:
    """The line of one process, which alone writes it."""

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._times = memoryview(memory)[offset + _TIMES : offset + LINE.size].cast("d")

    def set(self, until: float) -> None:
        """What is at work has to end by then; 0: nothing is, or it may take for ever."""
        self._times[0] = until

    def put_off(self, now: float) -> None:
        """Python runs."""
        self._times[1] = now


class Deadlines:
    """The table of one worker. ``fd``: what others open it by."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, SIZE)

    @classmethod
    def make(cls) -> Deadlines | None:
        """Make one; None where the system has no such memory."""
        if not hasattr(os, "memfd_create"):
            return None
        fd = os.memfd_create("celerypipe-deadlines")
        os.ftruncate(fd, SIZE)
        return cls(fd)

    @property
    def path(self) -> str:
        """Where a process of this worker finds it that inherits nothing."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def line(self, pid: int, grace: float) -> Deadline | None:
        """Take a line for a process; None: there is none left."""
        for number in range(pid, pid + TRIES):
            offset = number % LINES * LINE.size
            owner = LINE.unpack_from(self._memory, offset)[0]
            if owner in (0, pid) or not os.path.exists(f"/proc/{owner}"):
                LINE.pack_into(self._memory, offset, pid, grace, 0.0, 0.0)
                return Deadline(self._memory, offset)
        return None

    def missed(self, pid: int, now: float) -> float | None:
        """Has this process missed its deadline, and has Python not run there since? Then return when it ran last."""
        for number in range(pid, pid + TRIES):
            owner, grace, until, ran = LINE.unpack_from(self._memory, number % LINES * LINE.size)
            if owner == pid:
                return float(ran) if until and now > max(until, ran) + grace else None
        return None
