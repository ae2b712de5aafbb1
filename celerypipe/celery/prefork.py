"""Celery's pool of processes, which tells that a child began, and how it ended.

Celery itself only logs the end, and says it of a task ten seconds later; here somebody waits for the task's messages.
(The name of this module is that of the pool: a worker's presence says it.)
"""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork
from celery.utils.dispatch import Signal

#: Sent in the worker's own process with the ``pid`` of a child that began.
child_began = Signal(name="child_began", providing_args={"pid"})
#: Sent in the worker's own process, in its event loop, with the ``pid`` and the exit ``status`` of a child that ended.
child_ended = Signal(name="child_ended", providing_args={"pid", "status"})


class Pool(asynpool.AsynPool):  # type: ignore[misc]  # celery ships no types
    """The processes."""

    def _create_worker_process(self, i: int) -> Any:
        child = super()._create_worker_process(i)
        child_began.send(sender=self, pid=child.pid)
        return child

    def _join_exited_workers(self, shutdown: bool = False) -> Any:
        children = list(self._pool)
        try:
            return super()._join_exited_workers(shutdown)
        finally:
            for child in children:
                if child not in self._pool and child.exitcode is not None:
                    child_ended.send(sender=self, pid=child.pid, status=child.exitcode)


class TaskPool(prefork.TaskPool):  # type: ignore[misc]  # celery ships no types
    """The pool as a worker sees it."""

    Pool = Pool
