"""How long a pool process works before another replaces it: counted in messages, not in Celery's tasks.

One Celery task drains a mailbox for ten seconds. Who says ``--max-tasks-per-child 100``, since a library leaks, means a
hundred messages.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

#: The most that this process ever had is given in kibibytes, on macOS in bytes.
_UNIT = 1024 if sys.platform == "darwin" else 1


@dataclass(frozen=True, slots=True)
class Limits:
    """``messages`` that a process works on, and ``memory`` in KiB that it may have taken after one; None: any."""

    messages: int | None = None
    memory: int | None = None

    def __bool__(self) -> bool:
        return self.messages is not None or self.memory is not None


class Quota:
    """What one process has left of that. ``used_up`` says why it is to be replaced, or nothing."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._done = 0
        self.used_up = ""

    @property
    def left(self) -> float:
        """How many messages it may be given."""
        return float("inf") if self._limits.messages is None else max(0, self._limits.messages - self._done)

    @property
    def counts_memory(self) -> bool:
        """Does it end with what the process took?"""
        return self._limits.memory is not None

    def spend(self, messages: int) -> None:
        """So many more were worked on."""
        self._done += messages
        if not self.left:
            self.used_up = f"after {self._done} messages"
        elif self._limits.memory is not None and (memory := memory_taken()) > self._limits.memory:
            self.used_up = f"after {self._done} messages, since it took {memory:,} KiB of memory"


def memory_taken() -> int:
    """Return the most memory that this process had at a time, in KiB: as Celery counts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _UNIT
