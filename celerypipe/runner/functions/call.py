"""A call: a future for what a function returns elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from celerypipe.errors import NodeTimeout, WorkerLost
from celerypipe.mailbox.blob.inputs import ArgumentPlace, placed
from celerypipe.message.console import Console
from celerypipe.runner.functions.outcome import Outcome

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
    """What a call asks of its session, which knows the rest of it until it is settled."""

    def is_waiting(self, call: Call[Any]) -> bool:
        """Is an input of it missing?"""

    def is_running(self, call: Call[Any]) -> bool:
        """Has a worker begun with it, or is it about to?"""

    def cancel(self, call: Call[Any]) -> None:
        """Settle it as cancelled if it is not settled, and let go of it."""

    def later(self, work: Callable[[], None]) -> None:
        """Do this in a thread where it holds nobody up."""

    def trouble(self, call: Call[Any]) -> str:
        """Why it is not done, as far as that is known here; empty, or the end of a sentence."""

    def check_process(self) -> None:
        """Raise RuntimeError in a forked child: nobody settles calls there."""


class Call(Future[T]):
    """What :meth:`Runner.submit` returns: a ``concurrent.futures.Future`` with a state, timing and console.

    It can be an argument of another call, which then starts when this one is through. ``cancel()`` works until it is
    done, also while it is running: its worker is interrupted if its pool can, and what comes of it is dropped. Let go
    of it, and what it holds in Redis goes as well::

        call = runner.submit(spectrum, samples, 16000)
        peaks = runner.submit(highest, call, count=3)
        peaks.result(timeout=5), peaks.state, peaks.timing
    """

    def __init__(self, clerk: Clerk, name: str) -> None:
        super().__init__()
        #: The name of the function.
        self.function = name
        self.timing = Timing(time.time())
        #: What it printed, once it is done or failed, if its function asks for that: ``@node(console=True)``.
        self.console: Console | None = None
        self._clerk = clerk

    def __repr__(self) -> str:
        # Nobody is asked for this.
        state = self.state if self.done() or self._clerk.is_waiting(self) else "on its way"
        return f"<Call of {self.function}: {state}>"

    @property
    def state(self) -> CallState:
        """Where it is: ``waiting`` for its inputs, ``queued``, ``running``, or how it ended."""
        if not self.done():
            if self._clerk.is_waiting(self):
                return "waiting"
            return "running" if self._clerk.is_running(self) else "queued"
        if self.cancelled():
            return "cancelled"
        error = super().exception(0)
        if error is None:
            outcome = outcome_of(self)
            return "cached" if outcome is not None and outcome.known else "done"
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
        value: T = outcome.given()
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
        """Cancel it, in any state before it is done; return whether it is cancelled."""
        if not self.done():
            self._clerk.cancel(self)
        return self.cancelled()

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
        super().add_done_callback(lambda _: self._clerk.later(tell))

    def set_result(self, result: T) -> None:
        """Not for users of a call: its session settles it."""
        raise InvalidStateError(f"{self!r} is settled by its session")

    def set_exception(self, exception: BaseException | None) -> None:
        """Not for users of a call: its session settles it."""
        raise InvalidStateError(f"{self!r} is settled by its session")

    @property
    def is_apart(self) -> bool:
        """Has its result yet to be fetched?"""
        outcome = outcome_of(self)
        return outcome is not None and outcome.is_apart

    def is_of(self, clerk: Clerk) -> bool:
        """Was it submitted there?"""
        return self._clerk is clerk

    def _late(self, timeout: float | None) -> TimeoutError:
        seconds = max(0.0, timeout or 0.0)
        return TimeoutError(f"{self.function}: no result after {seconds:.4g} s{self._clerk.trouble(self)}")

    def _look(self) -> None:
        if not self.done():
            self._clerk.check_process()


def outcome_of(call: Call[Any]) -> Outcome | None:
    """What a call came to, unopened; None if it is not done, was cancelled, or failed."""
    if not call.done() or call.cancelled() or Future.exception(call) is not None:
        return None
    found: Any = Future.result(call)
    return found if isinstance(found, Outcome) else None


def error_of(call: Call[Any]) -> BaseException | None:
    """What a call failed with, or that it was cancelled; None if it did not fail. It is done."""
    if call.cancelled():
        return CancelledError(f"{call.function} was cancelled")
    return Future.exception(call, 0)


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
