"""One thread of a worker process that refreshes the bells its activations hold, and tells them what it sees.

The hot path never pays for a lease: it only looks at ``Lease.state``. The same thread publishes results that are
finished while the message after them takes long.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from celerypipe.mailbox.mailbox import Mailbox, drop
from celerypipe.mailbox.wire import Answer
from celerypipe.redis.connection import Broken, Client
from celerypipe.worker.activation.alarm import Alarm, Unarmed
from celerypipe.worker.activation.outbox import FLUSH_AFTER, Outbox
from celerypipe.worker.activation.quota import Quota

logger = logging.getLogger(__name__)

BellState = Literal["held", "lost", "over"]

#: Seconds between two looks.
TICK = 1.0
#: Seconds between two looks at what a process keeps while it has nothing to do.
IDLE_TICK = 10.0
#: An idle activation looks at its lease this often, milliseconds.
IDLE_LOOK = 100


@dataclass(slots=True, eq=False)
class Lease:
    """A bell that an activation holds, and what it asks to learn whether it may go on.

    ``queues`` are those of its worker; ``shutting_down`` tells when the worker wants to go. ``current`` is the entry it
    works on, or empty.
    """

    mailbox: Mailbox
    slot: int
    owner: str
    alarm: Alarm | Unarmed
    queues: Sequence[str] = ()
    shutting_down: Callable[[], bool] = bool
    #: What its process may still work on, if that is limited.
    quota: Quota | None = None
    state: BellState = "held"
    current: str = ""
    outbox: Outbox | None = None
    #: Sends how far its message is that passes several nodes in one go, if there is something to tell.
    note: Callable[[Callable[[Answer], None]], None] | None = None
    #: When the node that it is at work for has to be through, by the monotonic clock; infinite: nobody said.
    until: float = math.inf
    #: The entry that was called back, and when: its node should end soon.
    called_back: tuple[str, float] = ("", 0.0)
    thread: int = field(default_factory=threading.get_ident)
    #: What its activation may hold, this one among them.
    bells: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.bells.add(self.bell)

    @property
    def bell(self) -> str:
        return f"{self.mailbox.bell}{self.slot}"

    def beside(self, mailbox: Mailbox) -> Lease:
        """Return that of another node's bell, held by the same activation, or about to be."""
        return Lease(
            mailbox, self.slot, self.owner, self.alarm, self.queues, self.shutting_down, self.quota, bells=self.bells
        )

    def must_stop(self, age: float, term: float) -> str:
        """Why its activation has to end, which began ``age`` seconds ago; empty: it may go on."""
        if self.state != "held":
            return self.state
        if self.shutting_down():
            return "shutdown"
        if self.alarm.interrupted:
            return "interrupted"
        if self.quota is not None and self.quota.used_up and term != math.inf:  # else its state would be lost
            return "recycle"
        return "term" if age > term else ""

    def others_wait(self, client: Client) -> bool:
        """Do the queues of its worker have tasks that this slot could take?"""
        return any(client.together(*[("LLEN", client.names.queue(queue)) for queue in self.queues]))

    @property
    def at_work(self) -> str:
        """What the alarm calls the message it works on; empty between messages."""
        return self.name(self.current) if self.current else ""

    def call_back(self, entry: str) -> None:
        """Note that nobody waits for it any more, from the first time on."""
        if entry and self.called_back[0] != entry:
            self.called_back = entry, time.monotonic()

    def name(self, entry: str) -> str:
        """What the alarm calls a message: ids of entries are unique within one mailbox only."""
        return f"{self.mailbox.node} {entry}"


class Keeper:
    """Refreshes leases every second while there are any, and looks for results left behind after :meth:`hurry`.

    ``idle`` is called now and then while there are none.
    """

    def __init__(self, connect: Callable[[], Client], idle: Callable[[Client], None] = lambda client: None) -> None:
        self._connect = connect
        self._idle = idle
        self._leases: set[Lease] = set()
        #: Bells, each with who held it.
        self._left: set[tuple[str, str]] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._next_look = self._next_idle = 0.0
        self._hurry_until = 0.0

    def add(self, lease: Lease) -> None:
        """Keep this lease from now on; it was taken a moment ago."""
        with self._changed:
            if not self._leases:
                self._next_look = time.monotonic() + TICK  # until then the thread sleeps on: waking it costs time
            self._leases.add(lease)
            self._run()

    def remove(self, lease: Lease) -> None:
        """Stop keeping it."""
        with self._changed:
            self._leases.discard(lease)

    def take_back(self, lease: Lease) -> None:
        """Its activation is broken off, and may still have bells: delete them, however long it takes.

        They would not lapse for long, and their process lives, so that nobody else takes them.
        """
        with self._changed:
            self._leases = {each for each in self._leases if each.owner != lease.owner}
            self._left.update((bell, lease.owner) for bell in lease.bells)
            self._run()

    @property
    def leases(self) -> list[Lease]:
        """Those that it keeps now."""
        with self._changed:
            return list(self._leases)

    def hurry(self) -> None:
        """A batch of several messages begins: look every few milliseconds for a while, not every second."""
        now = time.monotonic()
        if self._hurry_until < now + TICK / 2:
            with self._changed:
                self._hurry_until = now + TICK
                self._changed.notify()

    def _run(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._keep, name="celerypipe-keeper", daemon=True)
            self._thread.start()

    def _keep(self) -> None:
        client = self._connect()
        try:
            while True:
                with self._changed:
                    self._changed.wait(self._pause())
                    leases = list(self._leases)
                try:
                    self._round(client, leases)
                except Exception:  # one bad answer must not leave all leases to lapse
                    logger.exception("cannot look after what is at work this time")
        finally:
            client.close()

    def _round(self, client: Client, leases: list[Lease]) -> None:
        if not leases and time.monotonic() >= self._next_idle:
            self._next_idle = time.monotonic() + IDLE_TICK
            self._idle(client)
        for lease in leases:
            if lease.outbox is not None and lease.outbox.waiting:
                self._hurry_until = max(self._hurry_until, time.monotonic() + 2 * FLUSH_AFTER)
                if lease.outbox.age > 2 * FLUSH_AFTER:  # the activation is busy with something slow
                    _publish(client, lease, lease.outbox)
            _tell(client, lease)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + TICK
            for lease in leases:
                self._look(client, lease)
            for bell, owner in list(self._left):
                self._drop(client, bell, owner)

    def _pause(self) -> float:
        now = time.monotonic()
        if not self._leases:
            return TICK / 2
        return FLUSH_AFTER if now < self._hurry_until else max(0.0, self._next_look - now)

    def _look(self, client: Client, lease: Lease) -> None:
        current = lease.current
        try:
            seen = lease.mailbox.refresh(client, lease.slot, lease.owner, current)
        except Broken as error:
            logger.warning("cannot say in Redis that this is at work (%s): %s", lease.bell, error)
            return
        with self._changed:
            if lease not in self._leases:
                self._drop(client, lease.bell, lease.owner)  # released meanwhile, and taken again by this refresh
                return
        if seen == "lost":
            lease.state = "lost"
            lease.call_back(current)
            if at_work := lease.at_work:  # the activation may be busy for another node, whose bell it still has
                lease.alarm.interrupt("lost", at_work)
        elif seen == "over":
            lease.state = "over"
            lease.call_back(current)
            lease.alarm.interrupt("over")
        elif seen == "withdrawn" and lease.current == current:
            lease.call_back(current)
            lease.alarm.interrupt("withdrawn", lease.name(current))

    def _drop(self, client: Client, bell: str, owner: str) -> None:
        try:
            drop(client, bell, owner)
            self._left.discard((bell, owner))
        except Broken as error:
            self._left.add((bell, owner))
            logger.warning("cannot delete the key %s, trying again: %s", bell, error)


def _publish(client: Client, lease: Lease, outbox: Outbox) -> None:
    try:
        if not outbox.flush(client):
            lease.state = "over"
            lease.alarm.interrupt("over")
    except Broken as error:
        # They stay in the outbox; the activation tries again, or ends, and then somebody else claims them.
        logger.warning("cannot publish results for node %s: %s", lease.mailbox.node, error)


def _tell(client: Client, lease: Lease) -> None:
    note = lease.note
    if note is None:
        return
    try:
        note(lambda answer: lease.mailbox.note(client, lease.owner, answer))
    except Broken as error:  # it is sent with the next look
        logger.warning("cannot tell how far a message of node %s is: %s", lease.mailbox.node, error)
