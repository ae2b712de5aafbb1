"""What interrupts an ``update``, where that can be: in the main thread, or not at all."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from celerypipe.process import forks
from celerypipe.worker.activation.deadman import DeadMan

#: Seconds after which an interrupt that was not heard is raised again.
AGAIN = 0.5
#: The reason for an interrupt by which a worker that was told to end gets a message back, for others to run.
SHUTDOWN = "shutdown"
Given = TypeVar("Given")
Returned = TypeVar("Returned")


class Interrupted(BaseException):
    """Raised inside ``update`` by an :class:`Alarm`; a BaseException, so that ``except Exception`` lets it through."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Alarm:
    """Interrupts ``update`` in the main thread: after its timeout, or when another thread says so; until it is heard.

    Installed around an activation on prefork and solo workers. ``switch`` ends a process that does not react to the
    interrupt, since C code holds the GIL.
    """

    overran = False

    def __init__(self, switch: DeadMan) -> None:
        self.switch = switch
        #: It interrupted something: whatever that held may be half done, so its activation comes to an end.
        self.interrupted = False
        self._inside = False
        self._running = ""
        self._until = 0.0
        self._shot: tuple[str, str] | None = None
        self._previous: Any = None

    def __enter__(self) -> Alarm:
        self._previous = signal.signal(signal.SIGALRM, self._ring)
        forks.keep(self)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
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
        self._until = time.monotonic() + timeout if timeout is not None else math.inf
        self.switch.begin(self._until)
        try:
            try:
                self._inside = True  # before the timer: a signal before it would be nobody's
                if timeout is not None:
                    signal.setitimer(signal.ITIMER_REAL, timeout, AGAIN)
                return function(message)
            finally:
                self._inside = False
        finally:
            self._inside = False  # once more: an interrupt may come between a result and the line above
            if timeout is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
            self.switch.end()

    def interrupt(self, reason: str, name: str = "") -> None:
        """Interrupt what runs now, or only the message of that name; may be called from any thread."""
        self._shot = (reason, name)
        if self._inside:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

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
        self.interrupted = True
        raise Interrupted(reason)


class Unarmed:
    """Stands where an :class:`Alarm` cannot be: a thread that is not the main one cannot be interrupted.

    ``switch`` ends the process if one of its threads holds the GIL for good.
    """

    interrupted = False

    def __init__(self, switch: DeadMan) -> None:
        self.switch = switch
        #: Something took longer than it may: what waits behind that has been given to others.
        self.overran = False

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
        until = time.monotonic() + timeout if timeout is not None else math.inf
        self.switch.begin(until)
        try:
            return function(message)
        finally:
            self.switch.end()
            if timeout is not None:
                self.overran |= time.monotonic() > until

    def interrupt(self, reason: str, name: str = "") -> None:
        """Nothing to be done from here; the result will be dropped."""
