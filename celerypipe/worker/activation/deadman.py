"""A dead man's switch for a worker of threads: it ends a process in which no Python code gets to run any more.

A thread that computes in C and never lets go of the GIL stops all others, and with them everything that could notice.
:mod:`faulthandler` has a clock in C. It is set again and again while Python runs, and goes off when that stops.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time

#: Seconds that a node without a timeout, or one that warms up, may hold the GIL.
LONGEST = 300.0
#: A clock that goes off so many seconds early is not set anew: that starts a thread (about 50 µs).
SLACK = 1.0


class DeadMan:
    """The switch of one process. ``grace``: seconds beyond the timeouts of what runs there."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._calls: dict[int, float] = {}
        self._goes_off = 0.0
        self._lock = threading.Lock()

    def begin(self, timeout: float | None) -> None:
        """This thread hands a message over, for that many seconds; None: nobody knows for how long."""
        until = time.monotonic() + (LONGEST if timeout is None else timeout)
        with self._lock:
            self._calls[threading.get_ident()] = until
            if timeout is None and not self._goes_off:
                return  # it is no reason to set the clock, only one to put it off
            # For the most patient of those at work, and a little more, so that the next messages find it right.
            until = max(self._calls.values())
            if self._goes_off < until + self.grace:
                self._set(until + self.grace + SLACK)

    def end(self) -> None:
        """This thread has its result."""
        with self._lock:
            self._calls.pop(threading.get_ident(), None)

    def renew(self) -> None:
        """Python runs: called several times within ``grace``."""
        now = time.monotonic()
        with self._lock:
            if self._calls and self._goes_off:
                self._set(max(now, *self._calls.values()) + self.grace + SLACK)
            elif self._goes_off:
                faulthandler.cancel_dump_traceback_later()
                self._goes_off = 0.0

    def _set(self, when: float) -> None:
        self._goes_off = when
        faulthandler.dump_traceback_later(when - time.monotonic(), exit=True, file=sys.__stderr__ or 2)
