"""A watcher: what somebody else's code does about what happens in a run, such as metrics, traces or logs of its own."""

from __future__ import annotations

from celerypipe.message.message import Message


class Watcher:
    """Is called when something happens in a run: ``Runner(watchers=[MyWatcher()])``. Here each method does nothing.

    Write a subclass with the methods that you need. They are called by the thread in which that happens, several
    threads at a time, and the run waits until they return. An exception is logged, and the run continues. ``run`` is
    the id of the run; all calls of ``Runner.submit`` and ``Runner.map`` are one run. The payload of a ``message``
    that goes from worker to worker may not be here.
    """

    def run_began(self, run: str, pipeline: str) -> None:
        """Called when all nodes are ready, before the first message."""

    def message_done(self, run: str, node: str, message: Message, seconds: float) -> None:
        """Called when a proc or a sink has processed a message; ``seconds`` is 0 if its result was cached."""

    def attempt_failed(
        self, run: str, node: str, message: Message | None, error: BaseException, again: float | None
    ) -> None:
        """Called when a node failed; it is tried again after ``again`` seconds, or given up if that is None.

        ``message`` is None if a source could not make one.
        """

    def run_ended(self, run: str, status: str) -> None:
        """Called when a run is over; ``status`` as in its report: done, stopped, cancelled or failed."""
