"""A dead man's switch for a worker process: it ends one in which no Python code gets to run any more.

Code in C that never lets go of the GIL stops all threads, and with them everything that could notice.
:mod:`faulthandler` has a clock in C. It is set again and again while Python runs, and goes off when that stops: waiting
for Redis, for a file or for another thread is no reason, however long it takes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import sys
import threading
import time
from collections.abc import Iterator

#: Seconds that a node without a timeout, or one that warms up, may hold the GIL where others are at work.
LONGEST = 300.0
#: A clock that goes off so many seconds early is not set anew: that starts a thread (about 50 µs).
SLACK = 1.0


class DeadMan:
    """The switch of one process. ``grace``: seconds beyond the timeouts of what runs there; None: it never goes off."""

    def __init__(self, grace: float | None) -> None:
        self._grace = grace
        #: Until when a thread is at work, by its number.
        self._calls: dict[int, float] = {}
        self._goes_off = 0.0
        self._lock = threading.Lock()

    def begin(self, timeout: float | None) -> None:
        """This thread hands a message over, for that many seconds; None: nobody knows for how long."""
        if self._grace is None:
            return
        until = time.monotonic() + (LONGEST if timeout is None else timeout)
        self._calls[threading.get_ident()] = until
        if timeout is None or not self._fits(until, self._grace):
            self._arrange(self._grace, limited=timeout is not None)

    def end(self) -> None:
        """This thread has its result. The clock goes on: the next message may find it right, or Python puts it off."""
        self._calls.pop(threading.get_ident(), None)

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """For the length of a block this thread may hold the GIL for long."""
        self.begin(None)
        try:
            yield
        finally:
            self.end()

    def renew(self) -> None:
        """Python runs: called several times within ``grace``."""
        if self._grace is None:
            return
        with self._lock:
            calls = list(self._calls.values())
            if calls and self._goes_off:
                self._set(max(time.monotonic(), *calls) + self._grace + SLACK)
            elif self._goes_off:
                self._stop()

    def _fits(self, until: float, grace: float) -> bool:
        """Does the clock go off soon after that, and not before? That of a node with much more time is none of it."""
        return until + grace <= self._goes_off <= until + 2 * grace + SLACK

    def _arrange(self, grace: float, *, limited: bool) -> None:
        """See to it that the clock is right for all who are at work, one of whom has just begun."""
        with self._lock:
            calls = list(self._calls.values())
            if not limited and len(calls) == 1:
                self._stop()  # left from the message before; nobody waits for the GIL
            elif (limited or self._goes_off) and not self._fits(latest := max(calls), grace):
                # For the most patient of those at work, and a little more, so that the next messages find it right.
                self._set(latest + grace + SLACK)

    def _set(self, when: float) -> None:
        self._goes_off = when
        faulthandler.dump_traceback_later(when - time.monotonic(), exit=True, file=sys.__stderr__ or 2)

    def _stop(self) -> None:
        if self._goes_off:
            faulthandler.cancel_dump_traceback_later()
            self._goes_off = 0.0
