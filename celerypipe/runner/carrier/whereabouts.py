"""Where a late message is: waiting in its mailbox, behind another one, or running - and taking it back."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, TypeVar

from celerypipe.mailbox import hints
from celerypipe.mailbox.fence import Fence
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.redis import keys
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Client, OneLine, connect
from celerypipe.runner.carrier.roster import Roster
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp

#: Seconds this may take: it is asked by the thread that watches time.
PATIENCE = 0.5
#: Seconds for which a Redis that did not answer in time is not asked again.
SILENCE = 1.0
#: Seconds without a question after which the connection is let go of.
REST = 5.0
#: Seconds a node may take to warm up before that counts as the time of its message.
WARM_UP = 300.0
#: Activations of which is remembered when they answered last, or that they are stuck.
REMEMBERED = 256

T = TypeVar("T")

#: The warped nodes of a run that one activation may serve together, upstream ones first, with their mailboxes.
Nearby = Mapping[Warp, Mailbox]
#: Messages that another activation shall have.
Behind = list[tuple[Warp, Flight]]


class Whereabouts:
    """Answers for one run, over a connection of its own that never waits long, and is there while it is asked."""

    def __init__(self, address: Address, roster: Roster) -> None:
        self._client = connect(address, name="celerypipe-clock", timeout=PATIENCE, kind=OneLine)
        #: Who asks has it: the thread that watches time, and whoever takes a node's messages elsewhere.
        self._asking = threading.Lock()
        self._asked = 0.0
        self._roster = roster
        self._heard: OrderedDict[str, float] = OrderedDict()
        #: Activations that said nothing since a message was taken from them that they were at work on, with its queue.
        self._stuck: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self._silent_until = 0.0

    def heard(self, consumer: str) -> None:
        """An activation is through with a message: the one it holds behind that begins now."""
        with self._lock:
            self._stuck.pop(consumer, None)
            _remember(self._heard, consumer, time.monotonic())

    def stuck_slots(self, queue: str) -> set[int]:
        """The slots of a queue that are held by activations which may hear no interrupt: nobody else comes there."""
        if not self._stuck:
            return set()
        with self._lock:
            return {Holder.read(consumer).slot for consumer, where in self._stuck.items() if where == queue}

    def began(self, nearby: Nearby, warp: Warp, flight: Flight) -> float:
        """Return when a message's own time began.

        Not while its node warms up, while it waited in an activation behind another of its run, or while nobody takes
        it since a process is freed of the message before, or replaced.
        """
        with self._asking:
            self._asked = time.monotonic()
            return self._began(nearby, warp, flight)

    def _began(self, nearby: Nearby, warp: Warp, flight: Flight) -> float:
        mailbox = nearby[warp]
        since = flight.due_since or flight.sent_at
        if time.monotonic() < self._silent_until:
            return since
        try:
            pending = self._pending(mailbox, flight.entry)
            if pending is None or not self._comes_to(mailbox, pending[0]):
                # Once more after the slot came back: it stood still until then, which was a moment ago.
                stood_still, flight.held_up = flight.held_up, hints.is_freeing(self._client, warp.queue)
                if stood_still or flight.held_up:
                    return time.monotonic()
            if pending is None:
                return since
            if flight.held_up:
                since = max(since, time.monotonic() - pending[1])
            running, entry = self._running(nearby, pending[0])
            warming = self._client.exists(self._client.names.warming(pending[0]))
            if warp.limits.batches.size > 1:
                since = max(since, time.monotonic() - hints.seconds_since_anew(self._client, pending[0]))
        except Broken:
            self._fell_silent()
            return since
        if warming and time.monotonic() - flight.sent_at < WARM_UP:
            return time.monotonic()
        if entry != flight.entry or running is not warp:
            others = list(running.flights.values()) if running is not None else ()
            if any(other.entry == entry for other in others):
                return time.monotonic()
        with self._lock:
            return max(since, self._heard.get(pending[0], 0.0))

    def withdraw(self, nearby: Nearby, warp: Warp, flight: Flight) -> tuple[str, list[Flight], Behind] | None:
        """Take a message back; return where its time went, the batch that it runs in, and what another one shall have.

        None: it has its answer, which counts.

        Its activation may stay with the message, and with those that it runs together with it: on threads, or where
        the interrupt is not heard. What it holds behind them is taken back too, and given to another activation.
        """
        with self._asking:
            self._asked = time.monotonic()
            return self._withdraw(nearby, warp, flight)

    def _withdraw(self, nearby: Nearby, warp: Warp, flight: Flight) -> tuple[str, list[Flight], Behind] | None:
        mailbox, entry = nearby[warp], flight.entry  # it has another one when it was given back and sent again
        spent = time.monotonic() - (flight.due_since or flight.sent_at)
        if time.monotonic() < self._silent_until:
            if warp.retained is not None:
                warp.retained.doubtful = True
            return f"{spent:.1f} s waiting; Redis does not answer", [], []
        batch: list[Flight] = []
        behind: Behind = []
        try:
            pending = self._pending(mailbox, entry)
            text = self._where(warp, flight, pending, spent)
            if warp.retained is not None:
                if not Fence(mailbox).withdraw(self._client, entry, flight.sequence):
                    return None
                warp.retained.doubtful |= not entry  # nobody knows whether it is there
            else:
                together = self._batch(pending[0], mailbox, warp, flight, entry) if pending is not None else {}
                if entry and not mailbox.withdraw(self._client, [entry]) and not flight.remaking:
                    return None
                self._take_batch(mailbox, together, batch)
                if pending is not None:
                    self._take_behind(pending[0], nearby, behind)
            flight.unserved = pending is None and bool(entry)
            if pending is not None:
                self._may_be_stuck(warp.queue, pending[0])
        except Broken as error:
            self._fell_silent()
            if warp.retained is not None:
                warp.retained.doubtful = True  # it may be answered, or not
            return f"{spent:.1f} s waiting; Redis does not answer: {error}", batch, behind
        return text, batch, behind

    def _may_be_stuck(self, queue: str, consumer: str) -> None:
        """An activation is late with a message, and is interrupted for that if its pool can: it may not hear it."""
        with self._lock:
            _remember(self._heard, consumer, time.monotonic())
            _remember(self._stuck, consumer, queue)
        if self._roster.interrupts(queue):  # a thread that is stuck stays so
            hints.say_freeing(self._client, [queue], str(Holder.read(consumer).process))

    def _where(self, warp: Warp, flight: Flight, pending: tuple[str, float] | None, spent: float) -> str:
        if not self._roster.slots(warp.queue):
            command = self._client.address.worker_command(warp.queue)
            return f"{spent:.1f} s waiting: no live worker serves queue {warp.queue!r}; start one: {command}"
        ahead = sum(1 for other in list(warp.flights) if other < flight.sequence)
        if pending is None:
            tasks: Any = self._client.llen(self._client.names.queue(warp.queue))
            behind = f" behind {ahead} messages" if ahead else (f" behind {tasks} tasks" if tasks else "")
            return f"{spent:.1f} s waiting{behind} on {warp.queue!r}"
        consumer, seconds = pending
        host = Holder.read(consumer).process.host
        ran = min(seconds, spent)
        return f"{spent - ran:.1f} s waiting on {warp.queue!r}, {ran:.1f} s running on {host}"

    def _pending(self, mailbox: Mailbox, entry: bytes) -> tuple[str, float] | None:
        """Who was given the message, and how many seconds ago."""
        if not entry:
            return None
        found: Any = self._client.xpending_range(mailbox.stream, keys.GROUP, min=entry, max=entry, count=1)
        if not found:
            return None
        return found[0]["consumer"].decode(), found[0]["time_since_delivered"] / 1000

    def _comes_to(self, mailbox: Mailbox, consumer: str) -> bool:
        """Does an activation run what it was given? Those of stateful nodes give nothing back.

        They leave it to the next one: when they are over, or behind a message that hears no interrupt.
        """
        with self._lock:
            if consumer in self._stuck:
                return False
        return bool(self._client.get(f"{mailbox.bell}{Holder.read(consumer).slot}") == consumer.encode())

    def _batch(self, consumer: str, mailbox: Mailbox, warp: Warp, flight: Flight, entry: bytes) -> dict[bytes, Flight]:
        """What an activation runs in one batch with this one, the first: as it divides what it has."""
        size = warp.limits.batches.size
        if size == 1 or flight.alone:
            return {}
        if entry in hints.anew(self._client, consumer, warp.name):
            # It is run by itself; but not if that was said after it was found to be late.
            began_now = hints.seconds_since_anew(self._client, consumer) < (warp.node.timeout or 0.0)
            return {entry: flight} if began_now else {}
        held = _held(self._client, mailbox, warp, consumer, first=entry, most=size)
        together = dict(takewhile(lambda each: not each[1].alone, held.items()))
        return together if len(together) > 1 else {}

    def _take_batch(self, mailbox: Mailbox, together: Mapping[bytes, Flight], batch: list[Flight]) -> None:
        """Take the others of a batch too, of which the first one is taken."""
        batch += list(together.values())[:1]
        taken = mailbox.withdraw(self._client, list(together)[1:])
        batch += [flight for entry, flight in together.items() if entry in taken]

    def _take_behind(self, consumer: str, nearby: Nearby, behind: Behind) -> None:
        for warp, mailbox in nearby.items():
            held = _held(self._client, mailbox, warp, consumer)
            suspects = hints.anew(self._client, consumer, warp.name) if warp.limits.batches.size > 1 else ()
            taken = mailbox.withdraw(self._client, list(held))
            for entry, flight in held.items():
                if entry in taken:
                    flight.alone |= entry in suspects
                    behind.append((warp, flight))

    def _fell_silent(self) -> None:
        """The thread that watches time must not wait for each message anew."""
        self._client.close()
        self._silent_until = time.monotonic() + SILENCE

    def _running(self, nearby: Nearby, consumer: str) -> tuple[Warp | None, bytes]:
        """What an activation runs: of all it holds, the oldest message of the node that is furthest upstream.

        What waits for company does not run, and may be upstream of what does.
        """
        gathers = len(nearby) > 1 and any(warp.limits.batches.size > 1 for warp in nearby)
        held = hints.held(self._client, consumer) if gathers else {}
        for warp, mailbox in nearby.items():
            end = f"({held[warp.name]}" if warp.name in held else "+"
            found: Any = self._client.xpending_range(
                mailbox.stream, keys.GROUP, min="-", max=end, count=1, consumername=consumer
            )
            if found:
                return warp, found[0]["message_id"]
        return None, b""

    def rest(self) -> None:
        """Let go of the connection if nobody asked for a while."""
        if time.monotonic() - self._asked > REST and self._asking.acquire(blocking=False):
            try:
                self._client.close()
            finally:
                self._asking.release()

    def close(self) -> None:
        """Let go of the connection; who asks this moment has the answer in ``PATIENCE``, or none."""
        asking = self._asking.acquire(timeout=PATIENCE)
        try:
            self._client.close()
        finally:
            if asking:
                self._asking.release()


def _held(
    client: Client, mailbox: Mailbox, warp: Warp, consumer: str, *, first: bytes = b"-", most: int = 1000
) -> dict[bytes, Flight]:
    """The messages of a node that an activation has and has not answered, by their entries, the oldest first."""
    found: Any = client.xpending_range(
        mailbox.stream, keys.GROUP, min=first, max="+", count=most, consumername=consumer
    )
    flights = {flight.entry: flight for flight in list(warp.flights.values())}
    return {entry: flights[entry] for each in found if (entry := each["message_id"]) in flights}


def _remember(known: OrderedDict[str, T], consumer: str, value: T) -> None:
    known[consumer] = value
    known.move_to_end(consumer)
    if len(known) > REMEMBERED:
        known.popitem(last=False)
