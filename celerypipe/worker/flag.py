"""One byte that a process and its pool children share: raised once, seen by all within a microsecond.

Forked children share anonymous memory. A spawned child starts from nothing and needs a file to find it by.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import tempfile


class SharedFlag:
    """A flag in shared memory; raising it is one byte written, safe inside a signal handler."""

    def __init__(self, path: str | None = None) -> None:
        """Make a new flag in anonymous memory, or open the one that ``path`` holds."""
        self._memory = mmap.mmap(-1, 1) if path is None else _mapped(path)

    def move_to_file(self) -> str:
        """Put the flag into a file that spawned children can open; return its path. The file goes when we exit."""
        descriptor, path = tempfile.mkstemp(prefix="celerypipe-flag-")
        try:
            os.write(descriptor, self._memory[:1])
        finally:
            os.close(descriptor)
        self._memory = _mapped(path)
        atexit.register(_remove, path, os.getpid())
        return path

    def leave_to_parent(self) -> None:
        """Called in a process that a node forked: it gets a flag of its own."""
        self._memory = mmap.mmap(-1, 1)

    def raise_it(self) -> None:
        """Tell all to end, and to let what is at work end first."""
        self._memory[0] |= 1

    def is_raised(self) -> bool:
        """Whether all were told to end."""
        return self._memory[0] != 0

    def hurry(self) -> None:
        """Tell all to end now."""
        self._memory[0] |= 2

    def is_urgent(self) -> bool:
        """Whether all were told to end now."""
        return self._memory[0] & 2 != 0


def _mapped(path: str) -> mmap.mmap:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), 1)


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child inherits the exit hook, not the file
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
