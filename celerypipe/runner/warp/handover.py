"""Results that come back in any order and are handed on in the order of their messages, by whoever brings them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Self

from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.station import Waiting
from celerypipe.runner.warp.flight import Done


class Handover(Waiting):
    """The half of a warped node that looks downstream.

    The thread that reads replies, for all nodes of the run, hands results on as long as nobody has to wait; a thread of
    this node's own takes over where somebody has. ``_held`` counts the messages that are in here, waiting or out.
    """

    def __init__(self, course: Course, node: NodeDefinition) -> None:
        super().__init__(course, node)
        self.limits = node.warp_configuration
        self._held = 0
        self._results: dict[int, Done] = {}
        self._arrived: deque[Done] = deque()
        self._next_out = 0
        self._handing = False
        self._stuck = False
        self._unstuck = threading.Condition(self._lock)
        #: The node that may have got what comes out of this one before the runner hears of it.
        self.onward: Self | None = None
        # What costs time on its own is not for the thread that reads replies for all nodes.
        self._slow = course.folder is not None and bool(course.folder.telemetry or node.auto_dump)

    def start(self) -> None:
        self.course.spawn(self.name, self._deliver)

    def pass_through(self, link: str, done: Done, *, crowd: bool) -> None:
        """Take a message from a link, and with it what this node made of it; :meth:`hand_over` passes that on."""
        raise NotImplementedError

    def _keep(self, sequence: int, done: Done) -> None:
        """Put a result aside until its turn."""
        with self._changed:
            if self.limits.ordered:
                self._results[sequence] = done
            else:
                self._arrived.append(done)

    def hand_over(self) -> None:
        """Pass on the results whose turn it is, as far as there is room downstream; the rest is for this node's thread.

        Called by who brought results, after a batch of them. It waits for nobody: it also reads for other nodes.
        """
        with self._changed:
            if self._handing or self._stuck:
                return
            if self._slow:
                self._leave()
                return
            self._handing = True
        self._pass_on_all(wait=False)

    def _leave(self) -> None:
        self._stuck = True
        self._unstuck.notify()

    def _pass_on_all(self, *, wait: bool) -> None:
        while ready := self._ready(1 if wait else self.limits.window):
            count = 0
            for done in ready:
                if not wait and not self.roomy(len(done.outputs)):
                    break
                if done.onward:
                    self._pass_through(done, wait=wait)
                else:
                    self.pass_on(done.outputs, done.message, crowd=not wait)
                self.course.left(done.message)
                count += 1
            if self.onward is not None:
                self.onward.hand_over()
            with self._changed:
                self._held -= count
                self._changed.notify_all()
                self._arrived.extendleft(reversed(ready[count:]))
                if count < len(ready):
                    self._handing = False
                    self._leave()
                    return

    def _pass_through(self, done: Done, *, wait: bool) -> None:
        """Pass on what the next node had already, each with what it made of it."""
        for output, after in zip(done.outputs, done.onward, strict=True):
            if after is None or self.onward is None:
                self.pass_on((output,), done.message, crowd=not wait)
                continue
            self.tally.sent += 1
            self.course.sent(after.message, done.message)
            self.onward.pass_through(self.name, after, crowd=not wait)
            if wait:  # there may be more of them than it has room for
                self.onward.hand_over()

    def _ready(self, most: int) -> list[Done]:
        """Take the results whose turn it is; when there are none, nobody is handing over any more."""
        with self._changed:
            while self._next_out in self._results:
                self._arrived.append(self._results.pop(self._next_out))
                self._next_out += 1
            if self._arrived and not self.course.over.is_set():
                return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]
            self._handing = False
            if self._stuck or (self._ended and not self._held):
                self._unstuck.notify()
            return []

    def _deliver(self) -> None:
        """The thread that hands results on where that takes waiting, and says at the end that all are out."""
        try:
            while self._is_my_turn():
                self._pass_on_all(wait=True)
        except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
            self.course.fail(error)
            return
        if not self.course.over.is_set():
            self.finish()

    def _is_my_turn(self) -> bool:
        """Wait until results are left to this thread; False: all are out, or the run is over."""
        with self._changed:
            while not self.course.over.is_set():
                if self._stuck and not self._handing:
                    self._stuck, self._handing = False, True
                    return True
                if self._ended and not self._held:
                    return False
                self._unstuck.wait(0.5)
        return False

    def drained(self) -> None:
        super().drained()
        with self._changed:
            self._unstuck.notify()

    def close(self) -> None:
        super().close()
        with self._changed:
            self._unstuck.notify()
