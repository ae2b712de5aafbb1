"""The calls of a session that are not settled, and which of them wait for which."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from celerypipe.runner.functions.call import Call, error_of
from celerypipe.runner.functions.submission import Submission

#: Seconds after which who waits for all calls looks whether the session is over.
LOOK = 1.0


class Ledger:
    """Holds each call until it is settled, and no longer. ``changed`` guards it, and tells of the first and the last.

    Who uses it holds no other lock meanwhile.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._open: dict[Call[Any], Submission] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def all(self) -> list[Submission]:
        """Return those that are not settled."""
        with self.changed:
            return list(self._open.values())

    def get(self, call: Call[Any]) -> Submission | None:
        """Return what is known of a call; None if it is settled."""
        return self._open.get(call)

    def enter(self, submission: Submission, refuse: Callable[[], None]) -> bool:
        """Take a call in; return whether all of its inputs are settled. ``refuse`` raises if none is taken any more."""
        with self.changed:
            refuse()
            self._open[submission.call] = submission
            for each in {each for _, each in submission.inputs}:  # it may be an argument twice
                if (needed := self._open.get(each)) is not None:
                    needed.dependents.append(submission)
                    submission.missing += 1
            if len(self._open) == 1:  # who watches time may be asleep
                self.changed.notify_all()
            return not submission.missing

    def settle(self, submissions: Iterable[Submission]) -> list[Submission]:
        """These are settled. Return those that waited for them and can start; fail those whose input failed."""
        settled = deque(submissions)
        ready: list[Submission] = []
        while settled:  # no recursion: a row of calls may be long
            submission = settled.popleft()
            with self.changed:
                self._open.pop(submission.call, None)
                dependents, submission.dependents = submission.dependents, []
                for each in dependents:
                    each.missing -= 1
                complete = [each for each in dependents if not each.missing]
                if not self._open:
                    self.changed.notify_all()
            error = error_of(submission.call)
            if error is None:
                ready += [each for each in complete if not each.call.done()]
            else:
                settled += [each for each in dependents if each.fail_for_input(error)]
            # Else the last of a row would keep all before it.
            submission.arguments, submission.inputs = ((), {}), ()
        return ready

    def wait(self, over: threading.Event) -> None:
        """Wait until all calls are settled, or the session is over."""
        with self.changed:
            while self._open and not over.is_set():
                self.changed.wait(LOOK)
