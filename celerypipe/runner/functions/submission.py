"""What a session knows of a call that is not settled: what was submitted, what it waits for, where it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from celerypipe.errors import NodeFailed
from celerypipe.mailbox.blob.inputs import ArgumentPlace
from celerypipe.mailbox.holder import Holder
from celerypipe.message.console import Console
from celerypipe.runner.functions.call import Call, Timing, error_of, outcome_of
from celerypipe.runner.functions.outcome import Outcome
from celerypipe.runner.warp.flight import Done, Flight
from celerypipe.runner.warp.warp import Warp


class Submission:
    """A call, the future that its user has, and all else of it. Only this settles that future.

    ``arguments`` have gaps where ``inputs``, which are calls, go; ``size`` in bytes. ``began``: ``time.monotonic()``.
    """

    def __init__(
        self,
        call: Call[Any],
        warp: Warp,
        arguments: tuple[Any, Any],
        inputs: tuple[tuple[ArgumentPlace, Call[Any]], ...],
        size: int,
        began: float,
    ) -> None:
        self.call = call
        self.warp = warp
        self.arguments = arguments
        self.inputs = inputs
        self.size = size
        #: Inputs that are still missing, and what waits for this one. The ledger's.
        self.missing = 0
        self.dependents: list[Submission] = []
        #: That of the message it went out with.
        self.message_id = ""
        #: How often its inputs were lost.
        self.mended = 0
        self._began = began
        # It may be settled by who is told that it is.
        self._settling = threading.RLock()

    @property
    def outcomes(self) -> tuple[tuple[ArgumentPlace, Outcome], ...]:
        """What its inputs came to, once they are there, with their places among its arguments."""
        return tuple((place, outcome) for place, each in self.inputs if (outcome := outcome_of(each)) is not None)

    @property
    def failed_input(self) -> BaseException | None:
        """What an input of it failed with; None if they are all there."""
        return next((found for _, each in self.inputs if (found := error_of(each)) is not None), None)

    @property
    def flight(self) -> Flight | None:
        """Where it is on its way, if it is."""
        flights = list(self.warp.flights.values())
        return next((flight for flight in flights if flight.message.id == self.message_id), None)

    # -- how it ends -------------------------------------------------------------------------------------------------

    def succeed(self, outcome: Outcome, done: Done) -> bool:
        """Settle it with what it came to; False: it was settled before."""
        # It is opened by who asks for it.
        return self._settle(Future.set_result, outcome, self._timing(done.waited, done.ran, done.by), done.console)

    def fail(self, error: BaseException) -> bool:
        """Settle it with an error, which may know more of it."""
        waited, ran = getattr(error, "times", (0.0, 0.0))
        timing = self._timing(waited, ran, getattr(error, "worker", ""))
        return self._settle(Future.set_exception, error, timing, getattr(error, "console", None))

    def fail_for_input(self, error: BaseException) -> bool:
        """Settle it without having started it, because an input of it failed."""
        what = "was cancelled" if isinstance(error, CancelledError) else f"failed: {error}"
        name = self.call.function
        failure = NodeFailed(f"{name}: not started, for an input of it {what}", node=name)
        failure.__cause__ = error
        return self.fail(failure)

    def cancel(self) -> bool:
        """Settle it as cancelled."""
        return self._settle(_cancel, None, self._timing(), None)

    def _settle(
        self, how: Callable[[Future[Any], Any], object], what: object, timing: Timing, console: Console | None
    ) -> bool:
        with self._settling:  # who sees that it is done sees the rest as well
            if self.call.done():
                return False
            self.call.timing, self.call.console = timing, console
            how(self.call, what)
        return True

    def _timing(self, waited: float = 0.0, ran: float = 0.0, worker: str = "") -> Timing:
        where = Holder.read(worker).process.where  # or it says so in words already
        return Timing(self.call.timing.submitted, time.monotonic() - self._began, waited, ran, where)


def _cancel(call: Future[Any], _: object) -> None:
    Future.cancel(call)
    call.set_running_or_notify_cancel()  # so that wait() and as_completed() hear of it
