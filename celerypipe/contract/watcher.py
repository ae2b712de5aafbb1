"""A watcher: what somebody else's code does about what happens in a run, such as metrics, traces or logs of its own."""

from __future__ import annotations

from celerypipe.message.message import Message


class Watcher:
    """Is told what happens in the runs of a runner: ``Runner(watchers=[MyWatcher()])``. Here it does nothing about it.

    A subclass has the methods that it wants. Each is called by the thread in which that happens, by several at a time,
    and what happens next waits for it. What it raises is logged, and ends nothing. ``run`` is the id of the run;
    the calls of ``Runner.submit`` and ``Runner.map`` are one run. The payload of a ``message`` may not be here, if it
    goes from worker to worker.
    """

    def run_began(self, run: str, pipeline: str) -> None:
        """Called when the nodes are ready, before the first message."""

    def message_done(self, run: str, node: str, message: Message, seconds: float) -> None:
        """Called when a proc or a sink is through with a message; it took so long, or nothing if that was cached."""

    def attempt_failed(
        self, run: str, node: str, message: Message | None, error: BaseException, again: float | None
    ) -> None:
        """Called when a node failed; ``again``: after so many seconds it is tried once more, None: it is given up.

        ``message`` is None where a source could not make one.
        """

    def run_ended(self, run: str, status: str) -> None:
        """Called when a run is over; ``status`` as in its report: done, stopped, cancelled or failed."""
