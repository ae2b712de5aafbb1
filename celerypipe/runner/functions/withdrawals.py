"""Calls that were cancelled while they were out: taken back by the thread that watches time."""

from __future__ import annotations

from collections import deque

from celerypipe.runner.functions.dispatch import Dispatch
from celerypipe.runner.functions.submission import Submission
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp

#: Seconds in which a call that was cancelled while it was being sent is looked for.
LATE = 30.0


class Withdrawals:
    """What is to be taken back. ``local``: it is taken back here, and has no place in Redis."""

    def __init__(self, dispatch: Dispatch, *, local: bool) -> None:
        self._dispatch = dispatch
        self._local = local
        self._cancelled: deque[Submission] = deque()
        self._late: list[tuple[float, Warp, Flight]] = []

    def add(self, submission: Submission) -> None:
        """This call was cancelled."""
        self._cancelled.append(submission)

    @property
    def waiting(self) -> bool:
        """Is there one that was not looked at yet?"""
        return bool(self._cancelled)

    @property
    def late(self) -> bool:
        """Is there one that was being sent when it was cancelled?"""
        return bool(self._late)

    def take_back(self, now: float) -> None:
        """Withdraw all of them, so that nobody starts them; who has begun is interrupted if that can be."""
        while self._cancelled:
            submission = self._cancelled.popleft()
            warp, flight = submission.warp, submission.flight
            if flight is None:
                continue
            if flight.entry:
                warp.carrier.withdraw(warp, flight)
            elif not self._local:  # it is about to be sent, or is being sent
                self._late.append((now, warp, flight))
            self._dispatch.drop(warp, flight)
            if self._local:  # from now on it does not begin, but it may have
                warp.carrier.withdraw(warp, flight)
        late, self._late = self._late, []
        for since, warp, flight in late:
            if flight.entry:
                warp.carrier.withdraw(warp, flight)
            elif now - since < LATE:
                self._late.append((since, warp, flight))
