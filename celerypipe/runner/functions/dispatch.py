"""The calls of a session that wait for room or are out: they go as messages, and each result settles its call."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Protocol

from celerypipe.errors import CelerypipeError, NodeFailed, RunCancelled
from celerypipe.message.message import Message
from celerypipe.runner.functions.outcome import payload
from celerypipe.runner.functions.submission import Submission
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.flight import Done, Flight
from celerypipe.runner.warp.warp import Warp

#: The link that calls come in by.
CALLS = "(calls)"


class Settling(Protocol):
    """What a session is told of its calls."""

    def succeeded(self, submission: Submission, done: Done) -> None:
        """A result is here."""

    def failed(self, submission: Submission, error: BaseException) -> None:
        """A call failed for good."""

    def withdraw(self, submission: Submission) -> None:
        """It was cancelled a moment ago, and is out all the same."""

    def mend(self, submission: Submission, flight: Flight) -> None:
        """Its worker could not get the bytes of an input."""


class Dispatch:
    """Sends calls as far as their functions have room, and gets what comes of them."""

    #: Results stay as they came, and who sends calls does not wait.
    sealed, may_wait = True, False

    def __init__(self, course: Course, session: Settling) -> None:
        self._course = course
        self._session = session
        #: Those that are out, by message; those that wait for room, by function.
        self._calls: dict[str, Submission] = {}
        self._queued: defaultdict[Warp, deque[Submission]] = defaultdict(deque)
        self._lock = threading.Lock()

    # -- out ---------------------------------------------------------------------------------------------------------

    def put(self, submission: Submission) -> None:
        """Its inputs are there: it may go as soon as there is room, see :meth:`send`."""
        with self._lock:
            self._queued[submission.warp].append(submission)

    def send(self) -> None:
        """Send calls that wait, as far as there is room."""
        with self._lock:
            waiting = list(self._queued.items())
        for warp, queued in waiting:
            while queued and (submission := self._next(warp, queued)) is not None:
                if not self._take(submission, warp):
                    with self._lock:
                        queued.appendleft(submission)
                    break
                if submission.call.done():  # it was cancelled this moment, and nobody saw where it was
                    self._session.withdraw(submission)

    def _next(self, warp: Warp, queued: deque[Submission]) -> Submission | None:
        with self._lock:
            while queued and queued[0].call.done():
                queued.popleft()
            if not queued or self._course.over.is_set() or warp.lacks_room(queued[0].size):
                return None
            return queued.popleft()

    def _take(self, submission: Submission, warp: Warp) -> bool:
        """Send a call; False: there was no room in the end."""
        arguments, inputs = submission.arguments, submission.outcomes
        if submission.call.done():  # it was cancelled, and its arguments with it
            return True
        try:
            message = Message(payload(arguments, inputs, opened=warp.seen_here))
        except CelerypipeError as error:  # what came of an input cannot be read
            self._session.failed(submission, error)
            return True
        for _, outcome in inputs:
            if not warp.seen_here and outcome.sealed is not None and outcome.sealed.blob is not None:
                outcome.sealed.blob.readers += 1  # for good: nobody says when its worker maps an input no more
        submission.message_id = message.id
        self._calls[message.id] = submission
        if warp.offer(CALLS, message, full="refuse"):
            return True
        self._calls.pop(message.id, None)
        submission.message_id = ""
        return False

    def depart(self, warp: Warp, sequence: int, message: Message) -> None:
        """The cache does not know a result: send its call, unless that was cancelled meanwhile."""
        submission = self._calls.get(message.id)
        if submission is None or submission.call.done():
            self._calls.pop(message.id, None)
            warp.arrive(sequence, Done(message, error=RunCancelled(f"{warp.name} was cancelled")))
            return
        warp.depart(sequence, message)
        if submission.call.done():  # as above
            self._session.withdraw(submission)

    def drop(self, warp: Warp, flight: Flight) -> None:
        """Nobody waits for this one any more: its result counts for nothing."""
        self._calls.pop(flight.message.id, None)
        warp.drop(flight, RunCancelled(f"{warp.name} was cancelled"))

    # -- back --------------------------------------------------------------------------------------------------------

    def deliver(self, warp: Warp, ready: Sequence[Done], *, wait: bool) -> int:
        for done in ready:
            submission = self._calls.pop(done.message.id, None)
            if submission is not None:
                warp.tally.sent += 1
                self._session.succeeded(submission, done)
        return len(ready)

    def delivered(self, warp: Warp) -> None:
        self.send()

    def give_up(self, warp: Warp, message: Message, error: BaseException, attempt: int, note: str = "") -> None:
        submission = self._calls.pop(message.id, None)
        if submission is not None:
            self._session.failed(submission, error)

    def mends(self, warp: Warp, flight: Flight, message: Message) -> bool:
        if len(message.payload) < 3:
            return False
        submission = self._calls.get(message.id)
        if submission is None:  # it is made again itself, and whoever wants that tries it once more
            text = f"{warp.name}: an input of it was lost once more"
            warp.failed(flight, NodeFailed(text, node=warp.name, message_id=message.id))
        elif not flight.remaking:
            flight.remaking = True
            self._session.mend(submission, flight)
        return True
