"""A circuit breaker for one queue of a run: where message after message waits in vain, the next ones do not wait.

Closed, messages go through. After several failures in a row that say that the queue is sick (nobody took the message
in time, or its process died), and no answer in between, it opens: messages are given up at once, by their nodes'
``on_error``. After a while one is let through as a probe (half-open); an answer closes the circuit again. What user
code raises is an answer: the queue is well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Literal

from celerypipe.errors import CircuitOpen, NodeTimeout, NoWorker, WorkerLost
from celerypipe.runner.report import QueueReport

#: Failures in a row that open a circuit.
ROW = 5
#: Seconds before the first probe; twice as long after each that fails, up to the longest.
REST = 10.0
REST_MOST = 60.0

CircuitState = Literal["closed", "open", "half-open"]


class Circuit:
    """The circuit of one queue. Any thread may call; ``say`` is told when it opens and when it closes."""

    def __init__(self, queue: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.queue = queue
        self.state: CircuitState = "closed"
        self.refused = 0
        self.opened = 0
        #: Processes died of the last messages: these are not to be run in the runner instead.
        self.deadly = False
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._row = 0
        self._rest = REST
        self._probe_at = 0.0
        self._workers: Collection[str] = ()
        self._was_empty = False

    def answered(self) -> None:
        """A worker answered for a message of this queue."""
        if self._row or self.state != "closed":  # called for every message: no lock where nothing changes
            self._close("it answers again")

    def judge(self, error: BaseException, *, unserved: bool) -> None:
        """A message failed, ``unserved``: before anybody was given it. Who raises is there, who hangs says nothing."""
        if isinstance(error, CircuitOpen):
            return
        if unserved or isinstance(error, WorkerLost | NoWorker):
            self.failed(str(error), deadly=isinstance(error, WorkerLost))
        elif not isinstance(error, NodeTimeout):
            self.answered()

    def refusal(self, node: str, message_id: str, *, probe: bool = True) -> CircuitOpen | None:
        """Why a message of a node does not go in, or None; ``probe``: it may be the one that is tried."""
        if self.admits(probe=probe):
            return None
        text = f"{node}: not sent: {ROW} messages in a row of queue {self.queue!r} got no answer"
        return CircuitOpen(text, node=node, message_id=message_id)

    def failed(self, why: str, *, deadly: bool = False) -> None:
        """A message found nobody, or its process died (``deadly``): ``why``, for the text."""
        with self._lock:
            self._row += 1
            self.deadly |= deadly
            if self.state == "open" or (self.state == "closed" and self._row < ROW):
                return
            first = self.state == "closed"
            self._rest = REST if first else min(2 * self._rest, REST_MOST)
            self._probe_at = self._clock() + self._rest
            self._was_empty = not self._workers
            self.state = "open"
            self.opened += first
        if first:
            self._say(
                f"queue {self.queue!r}: {ROW} messages in a row failed without an answer, the last one: {why}; "
                f"further messages fail at once, and the queue is tried again after {self._rest:.0f} s"
            )

    def admits(self, *, probe: bool = True) -> bool:
        """May a message go in? After a while one may, if it can be the ``probe``; the others are counted."""
        with self._lock:
            if self.state == "closed":
                return True
            if not probe or self._clock() < self._probe_at:
                self.refused += 1
                return False
            # A probe that gets lost on its way must not keep the circuit half-open for ever.
            self.state, self._probe_at = "half-open", self._clock() + self._rest
            return True

    def see(self, workers: Collection[str]) -> None:
        """These workers live. The first one of a queue that had none closes the circuit, another one may be tried."""
        new = set(workers) - set(self._workers)
        self._workers = workers
        if not new or self.state == "closed":
            return
        if self._was_empty:
            self._close("a worker serves it now")
        elif self.state == "open":
            self._probe_at = self._clock()

    def report(self) -> QueueReport:
        """What it did so far."""
        return QueueReport(self.queue, self.state, self.opened, self.refused)

    def _close(self, why: str) -> None:
        with self._lock:
            was, self.state = self.state, "closed"
            self._row, self.deadly = 0, False
        if was != "closed":
            self._say(f"queue {self.queue!r}: {why}; {self.refused} messages failed meanwhile")
