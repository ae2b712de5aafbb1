"""Results that come back in any order and are handed on in the order of their messages, by whoever brings them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from celerypipe.errors import RunCancelled
from celerypipe.runner.stations.station import Station
from celerypipe.runner.warp.carriage import Recipient
from celerypipe.runner.warp.flight import Done

#: The stand-in of a warped node, which this is a part of.
W = TypeVar("W", bound=Station)


class Handover(Generic[W]):
    """The half of a warped node that looks to the recipient of its results.

    The thread that reads replies, for all nodes of the run, hands results on as long as nobody has to wait; a thread of
    this node's own takes over where somebody has. ``held`` counts the messages that have a place in here, waiting or
    out; ``places`` is the number of the next one, ``through`` how many have their result or were given up.
    """

    def __init__(self, warp: W, recipient: Recipient[W]) -> None:
        self.held = self.places = self.through = 0
        # What costs time on its own is not for the thread that reads replies for all nodes.
        folder = warp.course.folder
        self.slow = folder is not None and bool(folder.telemetry or warp.node.auto_dump)
        self._warp = warp
        self._recipient = recipient
        self._limits = warp.node.warp_configuration
        self._over = warp.course.over
        self._outcomes = warp.tally.outcomes
        self._changed = warp.changed
        self._unstuck = threading.Condition(warp.lock)
        self._results: dict[int, Done] = {}
        self._arrived: deque[Done] = deque()
        self._next_out = 0
        #: One that is being passed on, by a thread that may wait for room.
        self._passing = 0
        self._handing = False
        self._stuck = False

    @property
    def unfinished(self) -> int:
        """How many of those were neither given up nor wait for room further on; the caller has the lock."""
        given_up = sum(done.error is not None for done in (*self._results.values(), *self._arrived))
        return self.held - given_up - self._passing

    def take_place(self) -> int:
        """Count one more message in here, and return its number; the caller has the lock."""
        self.held += 1
        self.places += 1
        return self.places - 1

    def keep(self, sequence: int, done: Done) -> None:
        """Put a result aside until its turn; it is counted now, once for each message."""
        with self._changed:
            self.through += 1
            self._outcomes["done" if done.error is None and not done.known else self._outcome(done)] += 1
            if self._limits.ordered:
                self._results[sequence] = done
            else:
                self._arrived.append(done)

    def _outcome(self, done: Done) -> str:
        if done.error is None:
            return "cached"
        return "cancelled" if isinstance(done.error, RunCancelled) else self._warp.failures.fate

    def hand_over(self) -> None:
        """Pass on the results whose turn it is, as far as nobody has to wait; the rest is for this node's thread.

        Called by who brought results, after a batch of them. It waits for nobody: it also reads for other nodes.
        """
        with self._changed:
            if self._handing or self._stuck:
                return
            if self.slow:
                self.leave()
                return
            self._handing = True
        self._pass_on_all(wait=False)

    def leave(self) -> None:
        """Leave what is to be passed on to this node's thread; the caller has the lock."""
        self._stuck = True
        self._unstuck.notify()

    def _pass_on_all(self, *, wait: bool) -> None:
        while ready := self._ready(1 if wait else self._limits.window):
            self._passing = int(wait)
            count = self._recipient.deliver(self._warp, ready, wait=wait)
            with self._changed:
                self.held -= count
                self._passing = 0
                self._changed.notify_all()
                if count < len(ready):
                    self._arrived.extendleft(reversed(ready[count:]))
                    self._handing = False
                    self.leave()
            self._recipient.delivered(self._warp)
            if count < len(ready):
                return

    def _ready(self, most: int) -> list[Done]:
        """Take the results whose turn it is; when there are none, nobody is handing over any more."""
        with self._changed:
            while self._next_out in self._results:
                self._arrived.append(self._results.pop(self._next_out))
                self._next_out += 1
            if self._arrived and not self._over.is_set():
                return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]
            self._handing = False
            if self._stuck or (self._warp.ended and not self.held):
                self._unstuck.notify()
            return []

    def live(self) -> None:
        """The thread that hands results on where that takes waiting, and says at the end that all are out."""
        try:
            while self._is_my_turn():
                self._pass_on_all(wait=True)
        except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
            self._warp.course.fail(error)
            return
        if not self._over.is_set():
            self._warp.finish()

    def _is_my_turn(self) -> bool:
        """Wait until results are left to this thread; False: all are out, or the run is over."""
        with self._changed:
            while not self._over.is_set():
                if self._stuck and not self._handing:
                    self._stuck, self._handing = False, True
                    return True
                if self._warp.ended and not self.held:
                    return False
                self._unstuck.wait(0.5)
        return False

    def wake(self) -> None:
        """No more messages will come, or the run is over: let this node's thread look."""
        with self._changed:
            self._unstuck.notify()
