"""A worker as runners know it: its heartbeat says so, told by a thread that asks nothing of Redis while all is well."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import redis
from billiard.pool import EX_OK, EX_RECYCLE
from celery import signals

from celerypipe.celery.prefork import child_ended
from celerypipe.heartbeat.heartbeat import Heartbeat
from celerypipe.mailbox.bell import bell_in, wrong_with
from celerypipe.mailbox.blob.shared_memory import Proof
from celerypipe.mailbox.deaths import Death, OutOfMemory, say_death
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.presence import Presence, removing_presence, revised, saying_presence
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Client, OneLine, Trouble, connect
from celerypipe.settings import Settings
from celerypipe.worker.activation.place import Worker
from celerypipe.worker.flag import SharedFlag
from celerypipe.worker.served import Served, presence_record, processes_of
from celerypipe.worker.watchdog import Watchdog

logger = logging.getLogger("celerypipe.worker")

#: Seconds between two looks of a worker at itself.
LOOK = 2.0
#: Seconds the end of a worker waits for its presence to be removed.
LEAVE_SECONDS = 2.0


class Present:
    """A worker that runners know of, for as long as its keeper says so; what happens to it is said there too."""

    def __init__(self, consumer: Any, worker: Worker, served: Served, flag: SharedFlag, heartbeat: Heartbeat) -> None:
        record = {**presence_record(worker, served), "name": consumer.hostname}
        self.proof: Proof | None = None
        if Settings.from_environment().shared_memory:
            self.proof = Proof()
            record["shared"] = self.proof.text

        names = worker.names
        said: list[Presence] = []

        def say() -> None:
            pool, scaler = consumer.pool, getattr(consumer.controller, "autoscaler", None)
            slots = scaler.max_concurrency if scaler is not None else pool.num_processes  # it grows with what is rung
            now = revised({**record, "slots": max(1, slots), "processes": processes_of(pool)})
            if [now] != said:
                said[:] = [now]
                heartbeat.say([saying_presence(names, now)], now["revision"])

        def withdraw() -> None:
            flag.raise_it()
            heartbeat.say(removing_presence(names, record["id"], record["queues"]))

        self.worker = worker
        self.name = consumer.hostname
        self.out_of_memory = OutOfMemory()
        self.watchdog = Watchdog(
            consumer.controller, withdraw, worker.end_of_work, self.forgive, worker.activity.answered
        )
        self.keeper = PresenceKeeper(worker.redis, say, self.watchdog, withdraw)

    def connect(self) -> None:
        """Say that it is there, and hear what happens."""
        child_ended.connect(self.say_how_it_died, weak=False)
        signals.task_received.connect(lambda **_: self.watchdog.received(), weak=False)
        signals.task_unknown.connect(self.leave_to_another, weak=False)
        self.keeper.start()

    def leave(self, through: Callable[[], bool] | None) -> None:
        """Wait until its presence is removed, and for the others of a process of which a thread is stuck."""
        self.keeper.join(LEAVE_SECONDS)
        if through is not None:
            self.watchdog.leave(through)
        if self.proof is not None:
            self.proof.remove()

    def say_how_it_died(self, pid: int, status: int, **_: Any) -> None:
        """Every time a pool process ends: what it was at work on may be its fault, and others wait for that."""
        place = str(self.worker.process(pid))
        death = Death(status, self.name, self.out_of_memory.happened(), told=status == EX_RECYCLE)
        if status not in (EX_OK, EX_RECYCLE):
            logger.error("process %d of this worker ended: %s", pid, death)
        self.keeper.say(lambda client: say_death(client, place, death))

    def forgive(self, pids: Sequence[int]) -> None:
        """These were killed because the worker ends, which is the fault of no message that they were at work on."""
        death = Death(-signal.SIGKILL, self.name, told=True)
        with contextlib.suppress(*Broken), connect(self.worker.redis, timeout=LEAVE_SECONDS) as client:
            for pid in pids:
                say_death(client, str(self.worker.process(pid)), death)

    def leave_to_another(self, message: Any, **_: Any) -> None:
        """Every time a task names a mark that this worker does not know: another worker of the queue may."""
        arguments: Any = message.payload[0] if isinstance(message.payload, list | tuple) and message.payload else ()
        bell = bell_in(arguments) if isinstance(arguments, list) else None
        if bell is not None and not wrong_with(bell):
            mailbox = Mailbox(bell.run, bell.node, names=self.worker.names)
            self.keeper.say(lambda client: mailbox.unring(client, bell.slot, bell.token))


class PresenceKeeper:
    """A daemon thread that looks after one worker. It has a connection only while there is something to ask or say."""

    def __init__(
        self, address: Address, say: Callable[[], None], watchdog: Watchdog, withdraw: Callable[[], None]
    ) -> None:
        """``say`` has the presence stand in Redis as it is now; ``withdraw`` takes it away."""
        self._present = say
        self._watchdog = watchdog
        self._withdraw = withdraw
        self._client: Client | None = None
        self.address = address
        # A SimpleQueue may be written to inside a signal handler, an Event may not. None: end.
        self._told: queue.SimpleQueue[Callable[[Client], None] | None] = queue.SimpleQueue()
        self._unsaid: deque[Callable[[Client], None]] = deque()
        self._thread = threading.Thread(target=self._keep, name="celerypipe-presence", daemon=True)
        self._removed = threading.Event()
        self._away = False

    def start(self) -> None:
        """Say that it is there now, and whenever that changes from now on."""
        self._thread.start()

    def end(self) -> None:
        """Remove the presence; callable inside a signal handler, waits for nothing."""
        self._told.put(None)

    def say(self, action: Callable[[Client], None]) -> None:
        """Have the thread do something in Redis, now or once that answers again; waits for nothing."""
        self._told.put(action)

    def join(self, timeout: float) -> None:
        """Wait until the presence is removed."""
        if self._thread.is_alive():
            self._removed.wait(timeout)

    def _keep(self) -> None:
        goes_on = True
        while goes_on:
            self._present()
            if self._watchdog.is_suspicious and not self._try(self._watchdog.look):
                self._watchdog.look(None)
            goes_on = self._listen()
            while self._unsaid and self._try(self._unsaid[0]):
                self._unsaid.popleft()
        self._withdraw()
        self._hang_up()
        self._removed.set()
        self._watchdog.see_off()

    def _listen(self) -> bool:
        """Wait until the next look, or until there is something to say; False: it is to end."""
        try:
            action = self._told.get(timeout=LOOK)
        except queue.Empty:
            if not self._unsaid and not self._watchdog.suspicions:
                self._hang_up()
            return True
        if action is not None:
            self._unsaid.append(action)
        return action is not None

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _try(self, action: Callable[[Client], None]) -> bool:
        """Do it; False when Redis is away, said once per outage."""
        try:
            if self._client is None:
                self._client = connect(self.address, name="celerypipe-presence", timeout=5.0, kind=OneLine)
            action(self._client)
        except (*Trouble, redis.RedisError) as error:
            if not self._away:
                logger.warning("Redis does not answer this worker (%s); trying every %d s", error, LOOK)
            self._away = True
            return False
        if self._away:
            logger.info("Redis answers this worker again")
        self._away = False
        return True
