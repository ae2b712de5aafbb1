"""What a stock Celery worker lacks: an event loop that looks around often, and a consumer that notices it is deaf.

A child that died is replaced after up to 5.8 s by Celery itself. And after Redis was away, a worker may stay up and
connected and never take a task again (celery#10205, #8030, #8091, #10302).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import billiard
from celery import bootsteps
from celery.worker import state

from celerypipe.redis.connection import Client, accepted
from celerypipe.worker import farewell

logger = logging.getLogger("celerypipe.worker")

#: Seconds between two beats of the pulse.
BEAT = 0.2
#: Seconds that Redis may answer nothing to a consumer that has a free slot, where kombu asks each second, before it is
#: asked whether there are tasks: then the consumer is deaf.
DEAF_AFTER = 10.0
#: Looks in a row that must agree.
DEAF_LOOKS = 3
#: Seconds running activations get to come back before a deaf worker exits.
COME_BACK = 10.0
#: Seconds after the time of its nodes by which a worker that was told to end is ended: those that hear no interrupt
#: have two of them.
LATEST = 5.0


class Pulse(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Wake the worker's event loop several times a second: it sleeps for up to a second at a time by itself.

    On prefork each beat replaces children that died. On threads it lets the worker take the next task soon after one
    ended (nothing is prefetched, and a thread that ends wakes nobody). On all, SIGTERM is seen at the next beat.
    """

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Called each time the event loop begins anew."""
        hub.call_repeatedly(BEAT, worker.pool.maintain_pool)


class Watchdog:
    """Notices that the worker's queues have tasks and it gets none; ends the process so that another can start."""

    def __init__(
        self,
        worker: Any,
        withdraw: Callable[[], None],
        end_of_work: Callable[[], float],
        forgive: Callable[[Sequence[int]], None],
        note: Callable[[float], None],
    ) -> None:
        """``worker``: Celery's; ``withdraw`` calls activations back and takes the presence away, before the end.

        ``end_of_work``: when what is at work has to be through, by the monotonic clock; ``forgive`` is told which
        processes were killed because the worker ends; ``note`` when Redis last answered the consumer.
        """
        self.worker = worker
        self.withdraw = withdraw
        self.end_of_work = end_of_work
        self.forgive = forgive
        self.note = note
        self.last_received = time.monotonic()
        self.suspicions = 0

    def received(self) -> None:
        """Note that a task came in."""
        self.last_received = time.monotonic()
        self.suspicions = 0

    @property
    def is_suspicious(self) -> bool:
        """Has Redis answered nothing for long, although the consumer should ask?"""
        if not self._listens():
            self.received()  # it knows that it cannot hear anything: the wait starts anew
        elif (answered := self._answered()) > self.last_received:
            self.last_received, self.suspicions = answered, 0
            self.note(answered)
        return time.monotonic() - self.last_received >= DEAF_AFTER

    def _answered(self) -> float:
        """When Redis last told the consumer whether there is a task."""
        consumer = self.worker.consumer.task_consumer
        return float(consumer.channel.client.answered) if consumer is not None else 0.0

    def look(self, client: Client | None) -> None:
        """Ask whether tasks wait, for it is suspicious; ``client`` is None while Redis is away."""
        if client is None or not self._waiting(client):
            self.received()
            return
        self.suspicions += 1
        if self.suspicions >= DEAF_LOOKS:
            self._end()

    def _listens(self) -> bool:
        consumer = self.worker.consumer
        return (
            getattr(consumer, "connection", None) is not None
            and consumer.blueprint.state == bootsteps.RUN
            and state.should_stop is None
            and state.should_terminate is None
            and len(state.reserved_requests) < self.worker.pool.num_processes
        )

    def _waiting(self, client: Client) -> bool:
        names = list(self.worker.app.amqp.queues.consume_from)
        return any(accepted(client.together(*[("LLEN", client.names.queue(name)) for name in names])))

    def leave(self, through: Callable[[], bool]) -> None:
        """Before the end of a process of which a thread is stuck: take no more tasks, let the others finish."""
        state.should_stop = os.EX_TEMPFAIL  # the event loop looks at it, unless it is what is stuck
        deadline = time.monotonic() + COME_BACK
        while not through() and time.monotonic() < deadline:
            time.sleep(0.05)

    def see_off(self) -> None:
        """The worker was told to end: end it, if something keeps it for longer than its nodes may take."""
        while time.monotonic() < self.end_of_work() + LATEST:
            time.sleep(BEAT)
        text = f"something keeps this worker from ending; exiting with status {os.EX_TEMPFAIL}"
        farewell.say(logger, logging.CRITICAL, text)
        self._exit()

    def _end(self) -> None:
        text = (
            "this worker is deaf: its queues have tasks, it has a free slot, and heard nothing of Redis for "
            f"{time.monotonic() - self.last_received:.0f} s; exiting with status {os.EX_TEMPFAIL} for its supervisor "
            "to start another"
        )
        farewell.say(logger, logging.CRITICAL, text)
        self.withdraw()
        deadline = time.monotonic() + COME_BACK
        while state.active_requests and time.monotonic() < deadline:
            time.sleep(0.05)
        self._exit()

    def _exit(self) -> None:
        pids = [child.pid for child in billiard.active_children()]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # a node may hear nothing else
        self.forgive(pids)
        os._exit(os.EX_TEMPFAIL)  # its event loop may be stuck for good, so no orderly end
