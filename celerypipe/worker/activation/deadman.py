"""A dead man's switch for a worker process: it says until when Python code must get to run there again.

Code in C that never lets go of the GIL stops all threads, and with them everything that could notice. Who notices is
the monitor of the worker's heartbeat (:mod:`celerypipe.heartbeat.deadlines`). It ends a process that missed its
deadline at two looks and ran between them: one that was stopped, or that waits for Redis, a file or another thread, may
go on.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import sys
import threading
import time
from collections.abc import Iterator

from celerypipe.heartbeat.deadlines import Deadline
from celerypipe.heartbeat.procfs import DUMP
from celerypipe.process.activity import Activity

#: Seconds that a node without a timeout, or one that warms up, may hold the GIL where others are at work.
LONGEST = 300.0


class DeadMan:
    """The switch of one process. ``deadline``: where it is set; None: nowhere, so that nobody ends the process.

    ``activity``: where it is noted that a message began.
    """

    def __init__(self, deadline: Deadline | None, activity: Activity | None = None) -> None:
        self._deadline = deadline
        self._began = activity.began if activity is not None else None
        #: Until when a thread is at work, by its number; infinite: nobody knows.
        self._calls: dict[int, float] = {}
        if deadline is not None:
            faulthandler.register(DUMP, file=sys.__stderr__ or 2)  # what is sent to it first

    def begin(self, until: float) -> None:
        """This thread hands a message over, until then by the monotonic clock; infinite: nobody knows for how long."""
        if self._began is not None:
            self._began()
        self._set(until)

    def _set(self, until: float) -> None:
        if self._deadline is not None:
            calls = self._calls
            calls[threading.get_ident()] = until
            alone = until if until != math.inf else 0.0  # nobody else waits for the GIL
            self._deadline.set(alone if len(calls) == 1 else self._latest())

    def end(self) -> None:
        """This thread has its result."""
        if self._deadline is not None:
            calls = self._calls
            calls.pop(threading.get_ident(), None)
            self._deadline.set(self._latest() if calls else 0.0)

    def _latest(self) -> float:
        """When the most patient of those at work has to be through."""
        calls = list(self._calls.values())
        latest = max(calls, default=0.0)
        if latest != math.inf:
            return latest
        return 0.0 if len(calls) == 1 else time.monotonic() + LONGEST

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """For the length of a block this thread may hold the GIL for long."""
        self._set(math.inf)
        try:
            yield
        finally:
            self.end()

    def renew(self) -> None:
        """Python runs: called several times within the grace."""
        if self._deadline is not None:
            self._deadline.put_off(time.monotonic())
