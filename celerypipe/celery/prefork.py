"""Celery's pool of processes, which tells that a child began and how it ended, and replaces one when its nodes say so.

Celery itself only logs the end, and says it of a task ten seconds later; here somebody waits for the task's messages.
(The name of this module is that of the pool: a worker's presence says it.)
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.process import AuthenticationString  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import Any

from billiard.pool import EX_OK, EX_RECYCLE
from celery.concurrency import asynpool, prefork
from celery.utils.dispatch import Signal

#: Seconds that a process gets to end by itself, with all that its nodes let go of.
LAST_SECONDS = 30.0
#: Seconds that a process that ends waits for its worker to read its answers.
READ_SECONDS = 1.0
#: Seconds after which a worker that ends looks whether processes ended that said nothing.
LOOK = 0.05
#: Sent in the worker's own process with the ``pid`` of a child that began.
child_began = Signal(name="child_began", providing_args={"pid"})
#: Sent in the worker's own process, in its event loop, with the ``pid`` of a child that can take tasks from now on.
child_up = Signal(name="child_up", providing_args={"pid"})
#: Sent in the worker's own process, in its event loop, with the ``pid`` and the exit ``status`` of a child that ended.
child_ended = Signal(name="child_ended", providing_args={"pid", "status"})


logger = logging.getLogger("celerypipe.worker")


class Child(asynpool.Worker):  # type: ignore[misc]  # celery ships no types
    """A pool process. It counts no tasks, since one may be thousands of messages: it ends when it is told to."""

    #: Why this process is to end before its next task; empty: it is not.
    retiring = ""
    #: Does it wait for a task?
    idle = False
    #: Does its worker end?
    dismissed = False

    def on_loop_start(self, pid: int) -> None:
        """Called in the new process; what its loop looks at is read after this."""
        super().on_loop_start(pid)
        _may_have_children()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, _told)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # held back where its worker starts anew
        self.maxtasks = self.max_memory_per_child = None
        wait: Callable[[], Any] = getattr(self, "wait_for_job")  # noqa: B009  # billiard sets it where mypy cannot see

        def wait_for_job() -> Any:
            if Child.retiring:
                end_in_time()
                logger.info("process %d is replaced %s", os.getpid(), Child.retiring)
                # When it hears of this end the pool sends SIGTERM: not heard, the process sleeps for a second first.
                Child.idle = True
                sys.exit(EX_RECYCLE)  # what waits in its pipe is for the one that replaces it
            Child.idle = True
            try:
                return wait()
            except SystemExit as told:
                Child.dismissed = told.code != EX_RECYCLE
                raise
            finally:
                Child.idle = False

        self.wait_for_job = wait_for_job

    def _ensure_messages_consumed(self, completed: int) -> bool:
        """Called last: let the worker read what this process answered.

        A worker that ends reads nothing of a task that it gave up before it heard that it began, for which billiard
        waits 30 s. One that goes on reads what is left once it sees this process end.
        """
        until = time.monotonic() + READ_SECONDS
        while (left := self.on_ready_counter.value < completed) and time.monotonic() < until:
            time.sleep(0.02)
        return not left

    def _do_exit(self, pid: int, exitcode: int | None, exc: Exception | None = None) -> None:
        """Called at the very end. billiard says so to the worker, and sleeps up to a second, until that sends SIGTERM.

        A worker that ends sends none.
        """
        if not Child.dismissed:
            super()._do_exit(pid, exitcode, exc)
        status = EX_OK if exitcode is None else exitcode
        try:
            self.on_exit(pid, status)
        finally:
            os._exit(status)


def _may_have_children() -> None:
    """Let nodes start processes, as in any process: a daemon may not, and a spawned one gets a key that can travel.

    This process ends without waiting for them. They are in a group that it leads, and whoever watches it ends them.
    """
    os.setpgid(0, 0)
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # billiard's too
    config["daemon"] = False
    config["authkey"] = AuthenticationString(bytes(config["authkey"]))


def retire(why: str) -> None:
    """Let this pool process end before its next task, and another take its place."""
    Child.retiring = Child.retiring or why


def end_in_time() -> None:
    """End this process, which is about to end by itself, from outside of Python if it does not.

    What is interrupted may leave a lock held for good, and something on the way out may wait for it.
    """
    faulthandler.dump_traceback_later(LAST_SECONDS, exit=True, file=sys.__stderr__ or 2)


def is_retiring() -> bool:
    """Is this pool process to end before its next task?"""
    return bool(Child.retiring)


def _told(number: int, _frame: object) -> None:
    """Stand in for billiard's handler, which raises in the middle of whatever a node does.

    A supervisor may tell all processes of a worker to end at once (systemd does), Flower one that is at work.
    """
    retire(f"because it got {signal.Signals(number).name}")
    if Child.idle:
        sys.exit(EX_RECYCLE)


class Answers(asynpool.ResultHandler):  # type: ignore[misc]  # celery ships no types
    """What processes answer."""

    def _flush_outqueue(self, fd: int, remove: Any, process_index: Mapping[int, Any], on_state_change: Any) -> Any:
        """Called when the worker ends, for one process after the other, as long as one is at work.

        Celery sleeps for half a second at each that says nothing.
        """
        if fd in process_index:
            poll = select.poll()
            for each in process_index:
                poll.register(each, select.POLLIN)
            if fd not in dict(poll.poll(1000 * LOOK)):
                return None
        return super()._flush_outqueue(fd, remove, process_index, on_state_change)


class Pool(asynpool.AsynPool):  # type: ignore[misc]  # celery ships no types
    """The processes."""

    Worker = Child
    ResultHandler = Answers

    def _create_worker_process(self, i: int) -> Any:
        child = super()._create_worker_process(i)
        child_began.send(sender=self, pid=child.pid)
        return child

    def on_process_alive(self, pid: int) -> None:
        """Called when a child says that it waits for tasks."""
        super().on_process_alive(pid)
        child_up.send(sender=self, pid=pid)

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
    _pool: Any

    def on_stop(self) -> None:
        """Called when the worker ends.

        Celery fires timers meanwhile, for AMQP's heartbeat, and looks only twice a second whether it may stop.
        """
        if self._pool is not None:
            self._pool.close()
            self._pool.join()
            self._pool = None
