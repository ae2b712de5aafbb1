"""A call: a future for what a function returns elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from celerypipe.errors import NodeTimeout, WorkerLost
from celerypipe.mailbox.blob.inputs import ArgumentPlace, placed
from celerypipe.message.console import Console
from celerypipe.runner.functions.outcome import Outcome
from celerypipe.runner.warp.flight import Done

logger = logging.getLogger(__name__)

T = TypeVar("T")

CallState = Literal["waiting", "queued", "running", "done", "failed", "cancelled", "timed out", "lost", "cached"]


@dataclass(frozen=True, slots=True)
class Timing:
    """When a call was submitted, Unix time, and its seconds: until it was settled (``seconds``), from the queue to its
    worker (``waited``), in the function (``ran``). ``worker``: host and process, or nothing if it ran here or never.
    """

    submitted: float
    seconds: float = 0.0
    waited: float = 0.0
    ran: float = 0.0
    worker: str = ""


class Clerk(Protocol):
    """What a call asks of its session."""

    def is_running(self, call: Call[Any]) -> bool:
        """Has a worker begun with it, or is it about to?"""

    def withdraw(self, call: Call[Any]) -> None:
        """It was cancelled: let go of it."""

    def later(self, work: Callable[[], None]) -> None:
        """Do this in a thread where it holds nobody up."""

    def trouble(self, call: Call[Any]) -> str:
        """Why it is not done, as far as that is known here; empty, or the end of a sentence."""

    def check_process(self) -> None:
        """Raise RuntimeError in a forked child: nobody settles calls there."""


class Call(Future[T]):
    """What :meth:`Runner.submit` returns: a ``concurrent.futures.Future`` that knows more.

    It can be an argument of another call, which then starts when this one is through. ``cancel()`` works until it is
    done, also while it is running: its worker is interrupted if its pool can, and what comes of it is dropped. Let go
    of it, and what it holds in Redis goes as well::

        call = runner.submit(spectrum, samples, 16000)
        peaks = runner.submit(highest, call, count=3)
        peaks.result(timeout=5), peaks.state, peaks.timing
    """

    def __init__(
        self,
        desk: Clerk,
        name: str,
        arguments: tuple[Any, Any],
        inputs: tuple[tuple[ArgumentPlace, Call[Any]], ...],
        size: int,
    ) -> None:
        super().__init__()
        #: The name of the function.
        self.function = name
        self.timing = Timing(time.time())
        #: What it printed, once it is done or failed, if its function asks for that: ``@node(console=True)``.
        self.console: Console | None = None
        self._desk = desk
        self._began = time.monotonic()
        self._arguments: tuple[Any, Any] = arguments
        self._inputs = inputs
        self._size = size
        #: Inputs that are still missing; calls that wait for this one, None once it is settled. The session's.
        self._missing = 0
        self._dependents: list[Call[Any]] | None = []
        self._warp: Any = None
        self._message_id = ""
        self._done: Done | None = None
        self._mended = 0
        self._cached = False
        #: The activation that answered for it, if one did.
        self._by = ""

    def __repr__(self) -> str:
        state = self.state if self.done() or self._missing else "on its way"  # nobody is asked for this
        return f"<Call of {self.function}: {state}>"

    # -- what its user sees ------------------------------------------------------------------------------------------

    @property
    def state(self) -> CallState:
        """Where it is: ``waiting`` for its inputs, ``queued``, ``running``, or how it ended."""
        if not self.done():
            if self._missing:
                return "waiting"
            return "running" if self._desk.is_running(self) else "queued"
        if self.cancelled():
            return "cancelled"
        error = super().exception(0)
        if error is None:
            return "cached" if self._cached else "done"
        if isinstance(error, NodeTimeout):
            return "timed out"
        return "lost" if isinstance(error, WorkerLost) else "failed"

    def result(self, timeout: float | None = None) -> T:
        """Return what the function returned; large results are fetched now, by whoever asks first.

        Raises what it failed with (:class:`~celerypipe.NodeFailed`, whose ``__cause__`` has the traceback of over
        there, :class:`~celerypipe.NodeTimeout`, :class:`~celerypipe.WorkerLost`), ``CancelledError``, and
        ``TimeoutError`` after ``timeout`` seconds.
        """
        self._look()
        try:
            outcome: Any = super().result(timeout)
        except TimeoutError:
            raise self._late(timeout) from None
        value: T = outcome.value()
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what it failed with, or None; otherwise as :meth:`result`."""
        self._look()
        try:
            return super().exception(timeout)
        except TimeoutError:
            raise self._late(timeout) from None

    def running(self) -> bool:
        """Has a worker been given it?"""
        return self.state == "running"

    def cancel(self) -> bool:
        """Cancel it, whatever its state, unless it is done; return whether it is cancelled now."""
        with self._condition:
            if self.done():
                return self.cancelled()
            super().cancel()
            self.set_running_or_notify_cancel()  # so that wait() and as_completed() hear of it
        self._settle_timing()
        self._desk.withdraw(self)
        return True

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn`` with this call when it is done: in a thread for callbacks, or at once if it is done already."""
        if self.done():
            super().add_done_callback(fn)
            return

        def tell() -> None:
            try:
                fn(self)
            except Exception:  # as concurrent.futures does: nobody else could be told
                logger.exception("exception calling callback for %r", self)

        # Whoever settles a call also reads the results of all others: user code must not hold that up.
        super().add_done_callback(lambda _: self._desk.later(tell))

    def set_result(self, result: T) -> None:
        """Not for users of a call: its session settles it."""
        raise InvalidStateError(f"{self!r} is settled by its session")

    def set_exception(self, exception: BaseException | None) -> None:
        """Not for users of a call: its session settles it."""
        raise InvalidStateError(f"{self!r} is settled by its session")

    # -- what its session does ---------------------------------------------------------------------------------------

    def _succeed(self, outcome: Outcome, timing: Timing) -> bool:
        """Settle it; False: it was before."""
        with self._condition:
            if self.done():
                return False
            self.timing = timing
            result: Any = outcome  # it is opened by who asks for it
            super().set_result(result)
        return True

    def _fail(self, error: BaseException, timing: Timing | None = None) -> bool:
        with self._condition:
            if self.done():
                return False
            if timing is not None:
                self.timing = timing
            else:
                self._settle_timing()
            super().set_exception(error)
        return True

    def _settle_timing(self) -> None:
        self.timing = Timing(self.timing.submitted, time.monotonic() - self._began)

    @property
    def _outcome(self) -> Outcome | None:
        """What it came to, once it is done and was neither cancelled nor failed."""
        with suppress(CancelledError, TimeoutError):
            if super().exception(0) is None:
                found: Any = super().result(0)
                return found if isinstance(found, Outcome) else None
        return None

    @property
    def is_apart(self) -> bool:
        """Has its result yet to be fetched?"""
        outcome = self._outcome
        return outcome is not None and outcome.is_apart

    @property
    def outcomes(self) -> tuple[tuple[ArgumentPlace, Outcome], ...]:
        """What its inputs came to, once they are there, with their places among its arguments."""
        return tuple((place, outcome) for place, each in self._inputs if (outcome := each._outcome) is not None)

    def _error(self) -> BaseException | None:
        """What it failed with, or that it was cancelled; None if it did not fail."""
        if self.cancelled():
            return CancelledError(f"{self.function} was cancelled")
        return super().exception(0)

    def _late(self, timeout: float | None) -> TimeoutError:
        seconds = max(0.0, timeout or 0.0)
        return TimeoutError(f"{self.function}: no result after {seconds:.4g} s{self._desk.trouble(self)}")

    def _look(self) -> None:
        if not self.done():
            self._desk.check_process()


def split(arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[Any, tuple[tuple[ArgumentPlace, Call[Any]], ...]]:
    """Return arguments without the calls among them, and those with their places: in lists, tuples and dicts too."""
    found: list[tuple[ArgumentPlace, Call[Any]]] = []
    try:
        _find(arguments, (), found)
    except RecursionError:  # lists that hold one another: the codec refuses them and says why
        return arguments, ()
    if not found:
        return arguments, ()
    return placed(arguments, [(place, None) for place, _ in found]), tuple(found)


#: Types of values that hold nothing.
_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})


def _find(value: Any, place: ArgumentPlace, found: list[tuple[ArgumentPlace, Call[Any]]]) -> None:
    kind = type(value)
    if kind is Call:
        found.append((place, value))
    elif kind is dict:
        if not _ATOMS.issuperset(map(type, value.values())):
            for key, each in value.items():
                _find(each, (*place, key), found)
    elif kind in (list, tuple) and not _ATOMS.issuperset(map(type, value)):
        for number, each in enumerate(value):
            _find(each, (*place, number), found)
