"""A process of a worker: what it knows of its worker, and what it keeps from one activation to the next."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from celerypipe.celery.item import Items
from celerypipe.celery.prefork import end_in_time, retire
from celerypipe.heartbeat.deadlines import Deadline, Deadlines
from celerypipe.mailbox import hints
from celerypipe.mailbox.deaths import Death, say_birth, say_death
from celerypipe.mailbox.holder import Process
from celerypipe.process.activity import Activity
from celerypipe.redis import keys
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Client, OneLine, Trouble, connect
from celerypipe.redis.keys import Names
from celerypipe.redis.signing import Keyring, Refusals
from celerypipe.settings import Settings
from celerypipe.worker import farewell
from celerypipe.worker.activation.alarm import Alarm, Unarmed
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.files import FileFolder
from celerypipe.worker.activation.keeper import Keeper, Lease
from celerypipe.worker.activation.quota import Limits, Quota
from celerypipe.worker.activation.shelf import Bounds, Shelf
from celerypipe.worker.activation.stuck import GRACE_AMONG_OTHERS, LATER, StuckWatch

logger = logging.getLogger(__name__)

KEPT = (
    "a node was interrupted in this process, which stays: what it left may stop later messages, such as a lock that is "
    "held for good. A process that a supervisor starts again is better ended: --exit-when-stuck"
)
ENDS = (
    f"a node was interrupted in this process: it ends with status {os.EX_TEMPFAIL}, for its supervisor to start another"
)


@dataclass(slots=True)
class Place:
    """What one worker process keeps between activations: warm instances, the keeper, a client per thread."""

    shelf: Shelf
    keeper: Keeper
    switch: DeadMan
    #: What this process may still work on, if that is limited.
    quota: Quota | None = None
    clients: threading.local = field(default_factory=threading.local)
    watch: StuckWatch | None = None
    #: Redis knows that this process is none that died before.
    known: bool = False


@dataclass(slots=True)
class Worker:
    """What an activation knows of the worker it runs in; made once, before the pool starts."""

    redis: Address
    queues: tuple[str, ...]
    host: str
    pool: str
    slots: int
    shutting_down: Callable[[], bool]
    #: Are messages at work handed back without any patience then?
    urgent: Callable[[], bool] = bool
    #: Seconds that a message at work has once the worker was told to end.
    patience: float = 10.0
    #: Seconds after which a process with a stuck node exits; None: it stays.
    stuck_after: float | None = None
    #: By when its processes have to let go of their interpreter locks; None: nobody looks at that.
    deadlines: Deadlines | None = None
    #: A process that was interrupted stays, and takes the next message.
    keeps_interrupted: bool = True
    #: What tells this worker from any other one, also from one of the same host and number.
    life: str = field(default_factory=lambda: secrets.token_hex(4))
    #: How a process exits that is the whole worker: called with what tells whether its other activations are through.
    leave: Callable[[Callable[[], bool]], None] | None = None
    #: None: neither tasks nor messages are signed.
    keyring: Keyring | None = None
    refusals: Refusals = field(default_factory=Refusals)
    #: How long each pool process works before another replaces it.
    limits: Limits = field(default_factory=Limits)
    #: Milliseconds that this may take at most.
    replacing: int = keys.FREEING_TTL
    #: How long nodes stay warm that nobody needs.
    keep_warm: Bounds = field(default_factory=Bounds)
    #: What its host is shown of it.
    activity: Activity = field(default_factory=Activity)
    _said_interrupted: bool = False
    _told: float = math.inf
    _places: dict[int, Place] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    #: Brings the files here that messages come with.
    files: FileFolder = field(init=False)
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        self.names = self.redis.names
        settings = Settings.from_environment()
        base = settings.files or Path(tempfile.gettempdir())
        self.files = FileFolder(
            lambda: connect(self.redis, name="celerypipe-files"), base, self.life, settings.files_bytes
        )

    def place(self) -> Place:
        """This process' own place; a forked child makes itself a new one."""
        pid = os.getpid()
        if pid not in self._places:
            with self._lock:  # two threads may come at once
                slots = self.slots if self.pool not in ("prefork", "solo") else 1
                switch = DeadMan(self._deadline(pid), self.activity)
                shelf = Shelf(slots, switch, self.keep_warm)
                keeper = Keeper(lambda: connect(self.redis, name="celerypipe-keeper", kind=OneLine), shelf.clear_up)
                quota = Quota(self.limits) if self.limits else None
                self._places.setdefault(pid, Place(shelf, keeper, switch, quota))
        return self._places[pid]

    def _deadline(self, pid: int) -> Deadline | None:
        if self.deadlines is None or self.stuck_after is None:
            return None
        return self.deadlines.line(pid, self.stuck_after + LATER)

    def process(self, pid: int) -> Process:
        """Return a process of this worker."""
        return Process(self.host, pid, self.life)

    def client(self) -> Client:
        """This thread's own client."""
        clients = self.place().clients
        if not hasattr(clients, "client"):
            clients.client = connect(self.redis, name="celerypipe-activation", kind=OneLine)
        client: Client = clients.client
        return client

    def items(self) -> Items:
        """What makes the tasks of this thread."""
        clients = self.place().clients
        if not hasattr(clients, "items"):
            clients.items = Items()
        items: Items = clients.items
        return items

    def begin(self, client: Client) -> None:
        """Before this process answers its first bell: watch over it, and say that it lives."""
        place = self.place()
        if place.known:
            return
        process = self.process(os.getpid())
        say_birth(client, str(process))  # a dead one may have had its number
        hints.say_replaced(client, self.queues, process)
        with self._lock:
            if not place.known:
                place.known = True
                grace = self.stuck_after or GRACE_AMONG_OTHERS
                place.watch = StuckWatch(
                    lambda: place.keeper.leases, grace, self._stuck, place.switch.renew, self.end_of_work
                )

    def alarm(self) -> Alarm | Unarmed:
        """What interrupts the node of an activation in this thread."""
        kind = Alarm if threading.current_thread() is threading.main_thread() else Unarmed
        return kind(self.place().switch)

    def after_interrupt(self, client: Client) -> None:
        """Take no more messages in this process, if another comes for it: whatever was interrupted left may be there.

        Such as a lock that is held for good, also one of the standard library.
        """
        process = str(self.process(os.getpid()))
        if self.shutting_down():
            return
        if self.keeps_interrupted:
            if self.pool != "prefork" and not self._said_interrupted:
                self._said_interrupted = True
                farewell.say(logger, logging.WARNING, KEPT)
            with contextlib.suppress(*Broken):
                hints.say_freed(client, self.queues, process)
            return
        if self.leave is None:
            self.replace(client, "after an interrupt")
            return
        farewell.say(logger, logging.WARNING, ENDS)
        self._say_that_it_ends()
        self.leave(lambda: True)
        end_in_time()

    def _say_that_it_ends(self) -> None:
        """The whole worker ends, for its supervisor to start another: nobody is late meanwhile."""
        with contextlib.suppress(*Trouble):
            hints.say_freeing(self.client(), self.queues, str(self.process(os.getpid())), keys.FREEING_MOST)

    def replace(self, client: Client, why: str) -> None:
        """Take no more messages in this process of a pool: another comes in a moment, and nobody is late meanwhile."""
        with contextlib.suppress(*Broken):
            hints.say_freeing(client, self.queues, str(self.process(os.getpid())), self.replacing)
        retire(why)

    def end_of_work(self) -> float:
        """When what is at work has to be through, by the monotonic clock; infinite: nobody told the worker to end."""
        if not self.shutting_down():
            return math.inf
        self._told = min(self._told, time.monotonic())
        return self._told + (0.0 if self.urgent() else self.patience)

    def _stuck(self, lease: Lease, text: str) -> None:
        if self.stuck_after is None and not self.shutting_down():
            text += "\nThis worker stays, without that slot; --exit-when-stuck would end it"
            farewell.say(logger, logging.ERROR, text)
            return
        text += f"\nThis process exits with status {os.EX_TEMPFAIL}, so that another can start"
        farewell.say(logger, logging.CRITICAL, text)
        place = self.place()

        def through() -> bool:
            place.switch.renew()  # Python runs; the thread that says so otherwise is this one
            return all(other.owner == lease.owner for other in place.keeper.leases)

        if self.leave is not None:
            if not self.shutting_down():
                self._say_that_it_ends()
            self.leave(through)
        if self.shutting_down():
            with contextlib.suppress(*Trouble):  # where Redis is gone nobody will ask
                say_death(self.client(), str(self.process(os.getpid())), Death(os.EX_TEMPFAIL, told=True))
        os._exit(os.EX_TEMPFAIL)  # so that its supervisor starts another

    def close(self) -> None:
        """Destroy this process' warm instances; called when the process ends."""
        self.place().shelf.close()
