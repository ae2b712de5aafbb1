"""The calls of a session that are not settled, and which of them wait for which."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from typing import Any

from celerypipe.errors import NodeFailed
from celerypipe.runner.functions.call import Call

#: Seconds after which who waits for all calls looks whether the session is over.
LOOK = 1.0


class Ledger:
    """Holds each call until it is settled, and no longer. ``changed`` guards it, and tells of the first and the last.

    Who uses it holds no other lock meanwhile.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._calls: set[Call[Any]] = set()

    def __bool__(self) -> bool:
        return bool(self._calls)

    def all(self) -> list[Call[Any]]:
        """Return those that are not settled."""
        with self.changed:
            return list(self._calls)

    def enter(self, call: Call[Any], refuse: Callable[[], None]) -> bool:
        """Take a call in; return whether all of its inputs are settled. ``refuse`` raises if none is taken any more."""
        with self.changed:
            refuse()
            self._calls.add(call)
            for _, each in call._inputs:
                if each._dependents is not None:
                    each._dependents.append(call)
                    call._missing += 1
            if len(self._calls) == 1:  # who watches time may be asleep
                self.changed.notify_all()
            return not call._missing

    def settle(self, calls: Iterable[Call[Any]]) -> list[Call[Any]]:
        """These are settled. Return those that waited for them and can start; fail those whose input failed."""
        settled = deque(calls)
        ready: list[Call[Any]] = []
        while settled:  # no recursion: a row of calls may be long
            call = settled.popleft()
            with self.changed:
                self._calls.discard(call)
                dependents, call._dependents = call._dependents or (), None
                for each in dependents:
                    each._missing -= 1
                complete = [each for each in dependents if not each._missing]
                if not self._calls:
                    self.changed.notify_all()
            error = call._error()
            if error is None:
                ready += [each for each in complete if not each.done()]
            else:
                settled += [each for each in dependents if each._fail(of_input(each, error))]
            call._arguments, call._inputs = ((), {}), ()  # else the last of a row would keep all before it
        return ready

    def wait(self, over: threading.Event) -> None:
        """Wait until all calls are settled, or the session is over."""
        with self.changed:
            while self._calls and not over.is_set():
                self.changed.wait(LOOK)


def of_input(call: Call[Any], error: BaseException) -> NodeFailed:
    """Return what a call fails with that was not started, because an input of it failed."""
    what = "was cancelled" if isinstance(error, CancelledError) else f"failed: {error}"
    failure = NodeFailed(f"{call.function}: not started, for an input of it {what}", node=call.function)
    failure.__cause__ = error
    return failure


def failed_input(call: Call[Any]) -> BaseException | None:
    """Return what an input of a call failed with; None if they are all there."""
    return next((found for _, each in call._inputs if (found := each._error()) is not None), None)
