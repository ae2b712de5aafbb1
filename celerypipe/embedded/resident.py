"""A process that ``Embedded`` keeps alive: when it is started again, and what its log says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

#: Seconds before a process that died is started again: first, and at most.
BACKOFF, BACKOFF_MAX = 0.2, 5.0
#: Lines of a log that an error shows, and how many bytes they may have.
TAIL, TAIL_BYTES = 12, 8192


class Resident:
    """One process that is kept alive: Redis, or a worker."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        #: What a worker that said that it lives is called where deaths are told.
        self.place = ""
        self.up = False
        #: It was told to end for another one, with the code as that is then; when runs were told that one comes.
        self.leaves = False
        self.told = 0.0
        self.deaths = 0
        self.not_before = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def died(self) -> int | None:
        """Return the exit status when it has just died, and plan its next start."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self.process = None
        self.deaths = 1 if self.up else self.deaths + 1
        self.up = False
        self.not_before = time.monotonic() + min(BACKOFF * 2 ** (self.deaths - 1), BACKOFF_MAX)
        return status

    def due(self) -> bool:
        """Whether it should be started now."""
        return self.process is None and time.monotonic() >= self.not_before

    def tell(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send it a signal, or to all of its process group."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.process.pid, number)

    def tail(self) -> str:
        """The last lines of its log."""
        return last_lines(self.log)


def last_lines(log: Path) -> str:
    """Return the end of a log, for an error."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL:])
    except OSError:
        return "(it wrote no log)"
