"""What interrupts an ``update``, where that can be: in the main thread, or not at all."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

from celerypipe import forks
from celerypipe.worker.activation.deadman import DeadMan

#: Seconds between an interrupt that had no effect and the end of the process.
GRACE = 2.0
Given = TypeVar("Given")
Returned = TypeVar("Returned")


class Interrupted(BaseException):
    """Raised inside ``update`` by an :class:`Alarm`; a BaseException, so that ``except Exception`` lets it through."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Alarm:
    """Interrupts ``update`` in the main thread: after its timeout, or when another thread says so.

    Installed around an activation on prefork and solo workers. A process that does not react to the interrupt within
    ``grace`` seconds of a timeout (a C loop that holds the GIL) is ended from a C thread by :mod:`faulthandler`; None:
    it is left alone.
    """

    def __init__(self, grace: float | None = GRACE) -> None:
        self._grace = grace
        self._inside = False
        self._running = ""
        self._until = 0.0
        self._shot: tuple[str, str] | None = None
        self._guarded_until = 0.0
        self._previous: Any = None

    def __enter__(self) -> Alarm:
        self._previous = signal.signal(signal.SIGALRM, self._ring)
        forks.keep(self)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.unguard()
        signal.signal(signal.SIGALRM, self._previous)

    def leave_to_parent(self) -> None:
        """Called in a fork, which has no clock running; whoever sets one there means something of his own."""
        if signal.getsignal(signal.SIGALRM) == self._ring:
            signal.signal(signal.SIGALRM, self._previous)

    def call(
        self,
        timeout: float | None,
        function: Callable[[Given], Returned],
        message: Given,
        name: str = "",
    ) -> Returned:
        """Call the function, with one message or several; raises :class:`Interrupted` inside it when time is over.

        ``name`` is what :meth:`interrupt` calls this message.
        """
        self._shot, self._running = None, name
        self._until = time.monotonic() + timeout if timeout is not None else float("inf")
        try:
            self._inside = True  # first: a signal before it would be nobody's, and none would follow
            if timeout is None:
                self.unguard()  # that of the message before would end this one
            else:
                self._guard(timeout)
                signal.setitimer(signal.ITIMER_REAL, timeout, 0.1)
            return function(message)
        finally:
            self._inside = False
            if timeout is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def interrupt(self, reason: str, name: str = "") -> None:
        """Interrupt what runs now, or only the message of that name; may be called from any thread."""
        self._shot = (reason, name)
        if self._inside:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """For the length of a block nothing has to be ended, however long it takes."""
        self.unguard()
        yield

    def unguard(self) -> None:
        """Call before an idle wait: nothing runs that would have to be ended."""
        if self._guarded_until:
            faulthandler.cancel_dump_traceback_later()
            self._guarded_until = 0.0

    def _guard(self, timeout: float) -> None:
        # Arming starts a thread (about 50 µs), so an armed guard is kept while it leaves at least half the grace.
        # It is not kept if it is that of a node with much more time.
        if self._grace is None:
            return
        until = time.monotonic() + timeout + self._grace
        if not until - self._grace / 2 <= self._guarded_until <= until + self._grace:
            self._guarded_until = until
            faulthandler.dump_traceback_later(timeout + self._grace, exit=True, file=sys.__stderr__ or 2)

    def _ring(self, _signal: int, _frame: FrameType | None) -> None:
        if not self._inside:
            return
        shot, self._shot = self._shot, None
        if shot is not None and shot[1] in ("", self._running):
            reason = shot[0]
        elif time.monotonic() >= self._until:
            reason = "timeout"
        else:
            return  # meant for a message that ended a moment ago
        self._inside = False
        raise Interrupted(reason)


class Unarmed:
    """Stands where an :class:`Alarm` cannot be: a thread that is not the main one cannot be interrupted.

    ``switch`` ends the process if one of its threads holds the GIL for good.
    """

    def __init__(self, switch: DeadMan | None = None) -> None:
        self._switch = switch

    def __enter__(self) -> Unarmed:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(
        self,
        timeout: float | None,
        function: Callable[[Given], Returned],
        message: Given,
        name: str = "",
    ) -> Returned:
        """Call the function, however long it takes."""
        if self._switch is None:
            return function(message)
        self._switch.begin(timeout)
        try:
            return function(message)
        finally:
            self._switch.end()

    def interrupt(self, reason: str, name: str = "") -> None:
        """Nothing to be done from here; the result will be dropped."""

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """For the length of a block this thread may hold the GIL for long."""
        if self._switch is not None:
            self._switch.begin(None)
        try:
            yield
        finally:
            if self._switch is not None:
                self._switch.end()

    def unguard(self) -> None:
        """Nothing to stand down."""
