"""Two times of a worker in a file that its host reads: its queue answered last, and a message began last.

They tell a worker that has nothing to do from one that does nothing. Nobody is ended because of them: a message may
take hours. Both are by the monotonic clock, which the processes of a machine share; 0: not yet.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

#: Where the host that starts a worker wants them.
VARIABLE = "CELERYPIPE_ACTIVITY"
_SIZE = 16


class Activity:
    """Those of one worker; all its processes write the same ones. Of a worker without a host nobody reads them."""

    def __init__(self, path: Path | None = None) -> None:
        """Open the file; one that is not there or cannot be used is nothing that a worker would end for."""
        self._times = memoryview(bytearray(_SIZE)).cast("d")
        if path is not None:
            with suppress(OSError, ValueError), path.open("r+b") as file:
                self._times = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("d")

    @classmethod
    def asked_for(cls, environment: Mapping[str, str]) -> Activity:
        """Return that of the worker which this environment is of."""
        path = environment.get(VARIABLE)
        return cls(Path(path) if path else None)

    @classmethod
    def make(cls, path: Path) -> Activity:
        """Make a file for a worker that is to start."""
        path.unlink(missing_ok=True)  # one that still ends may write into the old one
        path.write_bytes(bytes(_SIZE))
        return cls(path)

    def answered(self, at: float) -> None:
        """The queue was asked, and Redis answered."""
        self._times[0] = at

    def began(self) -> None:
        """A message goes to its node now."""
        self._times[1] = time.monotonic()

    def ago(self) -> tuple[float | None, float | None]:
        """Return how many seconds ago each was; None: not yet."""
        now = time.monotonic()
        polled, message = (round(max(0.0, now - at), 1) if at else None for at in self._times)
        return polled, message


def beside(log: Path) -> Path:
    """Return where they are of a worker whose log is there."""
    return log.with_suffix(".activity")
