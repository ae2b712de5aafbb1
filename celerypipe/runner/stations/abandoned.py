"""The threads that a node hangs in: left behind, since nothing ends a thread, and counted."""

from __future__ import annotations

from threading import Thread

from celerypipe.errors import NodeTimeout
from celerypipe.runner.stations.course import Course

#: So many threads of one node may hang; then the run fails, since each keeps a node with all that it loaded.
HUNG_MOST = 4


class Abandoned:
    """The threads of one node that nobody waits for any more; ``cure``: what to do when there are too many."""

    def __init__(self, course: Course, name: str, cure: str) -> None:
        self._course = course
        self._name = name
        self._cure = cure
        self._threads: list[Thread] = []

    def add(self, thread: Thread | None) -> None:
        """This thread hangs in user code; the one that is too many ends the run. One that came back hangs no more."""
        self._course.forget(thread)
        self._threads = [each for each in (*self._threads, thread) if each is not None and each.is_alive()]
        if len(self._threads) >= HUNG_MOST:
            text = f"{self._name}: {HUNG_MOST} of its threads hang, and nothing can end a thread; {self._cure}"
            self._course.fail(NodeTimeout(text, node=self._name))
