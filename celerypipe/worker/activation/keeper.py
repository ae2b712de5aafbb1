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
from typing import Any, Literal

from celerypipe.mailbox.mailbox import BellSeen, Mailbox, dropping, seen_in
from celerypipe.mailbox.wire import Answer
from celerypipe.redis.connection import Broken, Client, Command, Trouble
from celerypipe.redis.script import together
from celerypipe.worker.activation.alarm import Alarm, Unarmed
from celerypipe.worker.activation.outbox import FLUSH_AFTER, Outbox, flush
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
    #: How many orders there are to the nodes of its run.
    orders: int = 0
    #: When the keeper heard of it last, by the monotonic clock.
    heard: float = field(default_factory=time.monotonic)
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

    @property
    def keeps_maps(self) -> bool:
        """May its process keep shared memory mapped? That counts as memory that it takes."""
        return self.quota is None or not self.quota.counts_memory

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

    What it asks at a time is one round trip, however many leases there are: far from Redis they would lapse otherwise.
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
        due: dict[str, list[tuple[Lease, Outbox]]] = {}
        for lease in leases:
            if lease.outbox is not None and lease.outbox.waiting:
                self._hurry_until = max(self._hurry_until, time.monotonic() + 2 * FLUSH_AFTER)
                if lease.outbox.age > 2 * FLUSH_AFTER:  # the activation is busy with something slow
                    due.setdefault(lease.owner, []).append((lease, lease.outbox))
            _tell(client, lease)
        for of_one in due.values():
            _publish(client, of_one)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + TICK
            self._look(client, leases)
            self._drop(client)
        if not leases and not self._left:
            client.close()  # an activation that takes a second needs it again

    def _pause(self) -> float:
        now = time.monotonic()
        if not self._leases:
            return TICK / 2
        return FLUSH_AFTER if now < self._hurry_until else max(0.0, self._next_look - now)

    def _look(self, client: Client, leases: Sequence[Lease]) -> None:
        works = [lease.current for lease in leases]
        asked = [each.mailbox.refreshing(each.slot, each.owner, at) for each, at in zip(leases, works, strict=True)]
        for lease, current, answer in zip(leases, works, _asked(client, asked), strict=True):
            if isinstance(answer, Exception):
                logger.warning("cannot say in Redis that this is at work (%s): %s", lease.bell, answer)
                continue
            with self._changed:
                if lease not in self._leases:  # released meanwhile, and taken again by this refresh
                    self._left.add((lease.bell, lease.owner))
                    continue
            seen, orders = seen_in(answer)
            lease.orders, lease.heard = max(lease.orders, orders), time.monotonic()
            self._tell_what_was_seen(lease, current, seen)

    def _tell_what_was_seen(self, lease: Lease, current: str, seen: BellSeen) -> None:
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

    def _drop(self, client: Client) -> None:
        with self._changed:
            self._left -= {(lease.bell, lease.owner) for lease in self._leases}  # it was kept after all
            left = list(self._left)
        for each, answer in zip(left, _asked(client, [dropping(*each) for each in left]), strict=True):
            if isinstance(answer, Exception):
                logger.warning("cannot delete the key %s, trying again: %s", each[0], answer)
                continue
            with self._changed:
                self._left.discard(each)


def _asked(client: Client, commands: Sequence[Command]) -> list[Any]:
    """Return the answers, all of one round trip; each that there is none of is the exception that says why."""
    try:
        return together(client, *commands) if commands else []
    except Trouble as error:
        return [error] * len(commands)


def _publish(client: Client, of_one: Sequence[tuple[Lease, Outbox]]) -> None:
    """Publish what one activation has finished."""
    boxes = [box for _, box in of_one]
    try:
        if len(boxes) == 1:
            boxes[0].flush(client)
        else:
            flush(client, boxes)
    except Broken as error:
        # They stay in the outbox; the activation tries again, or ends, and then somebody else claims them.
        nodes = ", ".join(lease.mailbox.node for lease, _ in of_one)
        logger.warning("cannot publish results of %s: %s", nodes, error)
        return
    for lease, box in of_one:
        if box.refused:
            lease.state = "over"
            lease.alarm.interrupt("over")


def _tell(client: Client, lease: Lease) -> None:
    note = lease.note
    if note is None:
        return
    try:
        note(lambda answer: lease.mailbox.note(client, lease.owner, answer))
    except Broken as error:  # it is sent with the next look
        logger.warning("cannot tell how far a message of node %s is: %s", lease.mailbox.node, error)
