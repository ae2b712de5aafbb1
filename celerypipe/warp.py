"""The stand-in of a warped node inside the runner: a message goes out, its result comes back, in order, in time.

A :class:`Warp` owns every message until its result is back. It does not know how messages travel: a carrier takes
them away and reports back with :meth:`Warp.returned` or :meth:`Warp.failed`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from celerypipe import codec
from celerypipe.blob import Blob
from celerypipe.connection import Command
from celerypipe.errors import CodecError, NodeFailed, NodeTimeout
from celerypipe.message import Message
from celerypipe.pipeline import NodeDefinition
from celerypipe.station import Course, Full, Waiting

#: Errands are numbered from here, so that they are nobody's turn.
ERRANDS = 1 << 62

#: Gets what came out of a node, or why nothing did.
Errand = Callable[[Sequence[Message], BaseException | None], None]

#: A message, and what came out of its node.
Result = tuple[Message, Sequence[Message]]


@dataclass(slots=True, eq=False)
class Flight:
    """A message on its way to a worker and back. Times are ``time.monotonic()``; ``entry`` is its id in the mailbox.

    ``data`` travels in the mailbox, ``blob`` is what lies apart, ``storing`` puts it there when it is sent. An
    ``errand`` gets the result instead of the nodes downstream.
    """

    sequence: int
    message: Message
    attempt: int = 0
    size: int = 0
    sent_at: float = 0.0
    due_since: float | None = None
    entry: bytes = b""
    data: bytes | None = None
    storing: Sequence[Command] = ()
    blob: Blob | None = None
    done: bool = False
    errand: Errand | None = None


class Carrier(Protocol):
    """Takes the messages of warped nodes away and brings their results back."""

    #: Can it send on a payload that was not fetched?
    by_reference: bool

    def load(self, warp: Warp, flight: Flight, message: codec.Apart) -> None:
        """Give a flight its bytes; they have been copied afterwards."""

    def here(self, message: Message) -> Message | None:
        """Return a message with its payload, wherever that is; None if it is lost."""

    def room(self, size: int) -> bool:
        """May so many bytes more be in flight?"""

    def post(self, warp: Warp, flight: Flight, *, wait: bool = True) -> None:
        """Take a message. ``wait``: the calling thread may wait for an answer of Redis."""

    def began(self, warp: Warp, flight: Flight) -> float:
        """When its own time began, as far as known: what it waited behind others of this node does not count."""

    def withdraw(self, warp: Warp, flight: Flight) -> tuple[str, Sequence[Flight]]:
        """Take it back, so that nobody starts it.

        Return where its time went, for the error's text, and who is late with it: they run as one batch.
        """

    def settled(self, warp: Warp, flight: Flight) -> None:
        """Its result is here, or it was given up: nothing of it is needed any more."""

    def slots(self, warp: Warp) -> int:
        """How many messages its workers can run at the same time."""


class Warp(Waiting):
    """A warped node in one run."""

    def __init__(self, course: Course, node: NodeDefinition, carrier: Carrier) -> None:
        super().__init__(course, node)
        self.carrier = carrier
        self.limits = node.warp_configuration
        #: Mean seconds of ``update``, as replies report it.
        self.mean = 0.0
        #: When its last reply came: its bells are being heard.
        self.answered_at = 0.0
        #: Slots that bells are rung for now: so many messages can be in ``update``.
        self.rung = 1
        self.flights: dict[int, Flight] = {}
        self._unclocked: deque[Flight] = deque()
        self._clocked = 0
        self._results: dict[int, Result] = {}
        self._arrived: deque[Result] = deque()
        self._handing = False
        self._stuck = False
        self._unstuck = threading.Condition(self._lock)
        # What costs time on its own is not for the thread that reads replies for all nodes.
        self._slow = course.folder is not None and bool(course.folder.telemetry or node.auto_dump)
        self._held = 0
        self._sequence = 0
        self._next_out = 0
        self._errands = ERRANDS
        self._later: list[tuple[float, Flight]] = []
        self._joining = threading.Lock()

    @property
    def queue(self) -> str:
        return self.node.queue or ""

    @property
    def parallel(self) -> int:
        """How many of its messages may be in ``update`` at the same time."""
        slots = self.carrier.slots(self)
        return min(self.limits.parallel or slots, slots) if slots else 1

    def start(self) -> None:
        self.course.spawn(self.name, self._deliver)

    # -- in ---------------------------------------------------------------------------------------------------------

    def has_room(self, count: int) -> bool:
        # Behind the lock of a join somebody may be waiting.
        return len(self.join.links) < 2 and self._held + count <= self.limits.window and self.carrier.room(0)

    def offer(self, link: str, message: Message, *, full: Full = "wait") -> bool:
        self.received(message)
        if len(self.join.links) < 2:
            return self._accept(message, full)
        with self._joining:
            try:
                ready = self.join.put(link, message)
            except NodeFailed as error:
                self.course.fail(error)
                return False
            taken = True
            for one in ready:
                taken = self._accept(one, full) and taken
            return taken

    def _accept(self, message: Message, full: Full) -> bool:
        flight = Flight(-1, message)
        try:
            self.carrier.load(self, flight, codec.encode_apart((message,)))
        except CodecError as error:
            failure = NodeFailed(f"{self.name}: {error}", node=self.name, message_id=message.id)
            failure.kind = "codec"
            failure.__cause__ = error
            self.judge(message, failure, self.node.retries)
            return True
        with self._changed:
            if not self._wait_for_room(
                lambda: self._held >= self.limits.window or not self.carrier.room(flight.size), full
            ):
                return False
            self._held += 1
            flight.sequence, self._sequence = self._sequence, self._sequence + 1
            # In flight before it is sent: a result can be faster than the return from sending.
            self.flights[flight.sequence] = flight
            if self.node.timeout is not None:
                self._unclocked.append(flight)
                self._start_clocks()
        self.tally.bytes += flight.size
        self.carrier.post(self, flight)
        return True

    def _start_clocks(self) -> None:
        """Start the time of the next flights: those with fewer unfinished ones before them than slots were rung."""
        room = min(self.parallel, self.rung) - self._clocked
        while room > 0 and self._unclocked:
            flight = self._unclocked.popleft()
            if not flight.done:
                flight.due_since = time.monotonic()
                self._clocked += 1
                room -= 1

    def send_again(self, flight: Flight, message: Message) -> None:
        """Send a message once more, with other bytes: those it had are lost."""
        flight.message, flight.blob, flight.data = message, None, None
        self.carrier.post(self, flight)

    def run_errand(self, message: Message, errand: Errand) -> None:
        """Run a message beside the others: it is nobody's turn, and its result goes nowhere else."""
        with self._changed:
            self._errands += 1
            flight = Flight(self._errands, message, errand=errand)
            self.flights[flight.sequence] = flight
        self.carrier.post(self, flight)

    @property
    def takes_references(self) -> bool:
        """Can a message come to it whose payload was not fetched?"""
        return len(self.join.links) < 2 and self.carrier.by_reference

    @property
    def sends_references(self) -> bool:
        """Do its results go on to other warped nodes only, so that nobody here needs their bytes?"""
        return (
            bool(self.outlets)
            and not self._slow
            and all(isinstance(each.station, Warp) and each.station.takes_references for each in self.outlets)
        )

    # -- back -------------------------------------------------------------------------------------------------------

    def returned(self, flight: Flight, outputs: Sequence[Message], *, waited: float, ran: float) -> None:
        """The result of a message is here; :meth:`hand_over` passes it on. Only the first one counts."""
        if not self._settle(flight):
            return
        if flight.errand is not None:
            flight.errand(outputs, None)
            return
        total = time.monotonic() - flight.sent_at
        self.mean = 0.8 * self.mean + 0.2 * ran if self.mean else ran
        self.tally.waiting.add(waited)
        self.tally.running.add(ran)
        self.tally.transfer.add(max(0.0, total - waited - ran))
        self._keep(flight, outputs)

    def failed(self, flight: Flight, error: BaseException) -> None:
        """An attempt failed: try again later, or give the message up by ``on_error``."""
        if not self._settle(flight):
            return
        if flight.errand is not None:
            flight.errand((), error)
            return
        delay = self.judge(flight.message, error, flight.attempt)
        if delay is None:
            with self._changed:
                self._keep(flight, ())
                self._leave()  # said by a thread that must not pass messages on, such as the one that watches time
            return
        again = Flight(flight.sequence, flight.message, flight.attempt + 1, flight.size)
        with self._changed:
            self.flights[again.sequence] = again
            self._later.append((time.monotonic() + delay, again))

    def _settle(self, flight: Flight) -> bool:
        with self._changed:
            if flight.done or self.flights.get(flight.sequence) is not flight:
                return False
            flight.done = True
            del self.flights[flight.sequence]
            if flight.due_since is not None:
                self._clocked -= 1
            if self._unclocked:
                self._start_clocks()
        self.carrier.settled(self, flight)
        return True

    def _keep(self, flight: Flight, outputs: Sequence[Message]) -> None:
        with self._changed:
            if self.limits.ordered:
                self._results[flight.sequence] = (flight.message, outputs)
            else:
                self._arrived.append((flight.message, outputs))

    def hand_over(self) -> None:
        """Pass on the results whose turn it is, as far as there is room downstream; the rest is for this node's thread.

        Called by who brought results, after a batch of them. It waits for nobody: it also reads for other nodes.
        """
        with self._changed:
            if self._handing or self._stuck:
                return
            if self._slow:
                self._leave()
                return
            self._handing = True
        self._pass_on_all(wait=False)

    def _leave(self) -> None:
        self._stuck = True
        self._unstuck.notify()

    def _pass_on_all(self, *, wait: bool) -> None:
        while ready := self._ready(1 if wait else self.limits.window):
            done = 0
            for parent, outputs in ready:
                if not wait and not self.roomy(len(outputs)):
                    break
                self.pass_on(outputs, parent, crowd=not wait)
                done += 1
            with self._changed:
                self._held -= done
                self._changed.notify_all()
                self._arrived.extendleft(reversed(ready[done:]))
                if done < len(ready):
                    self._handing = False
                    self._leave()
                    return

    def _ready(self, most: int) -> list[Result]:
        """Take the results whose turn it is; when there are none, nobody is handing over any more."""
        with self._changed:
            while self._next_out in self._results:
                self._arrived.append(self._results.pop(self._next_out))
                self._next_out += 1
            if self._arrived and not self.course.over.is_set():
                return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]
            self._handing = False
            if self._ended and not self._held:
                self._unstuck.notify()
            return []

    def _deliver(self) -> None:
        """The thread that hands results on where that takes waiting, and says at the end that all are out."""
        try:
            while self._is_my_turn():
                self._pass_on_all(wait=True)
        except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
            self.course.fail(error)
            return
        if not self.course.over.is_set():
            self.finish()

    def _is_my_turn(self) -> bool:
        """Wait until results are left to this thread; False: all are out, or the run is over."""
        with self._changed:
            while not self.course.over.is_set():
                if self._stuck and not self._handing:
                    self._stuck, self._handing = False, True
                    return True
                if self._ended and not self._held:
                    return False
                self._unstuck.wait(0.5)
        return False

    def drained(self) -> None:
        super().drained()
        with self._changed:
            self._unstuck.notify()

    def close(self) -> None:
        super().close()
        with self._changed:
            self._unstuck.notify()

    def bury(self, message: Message, error: BaseException, attempt: int) -> None:
        # In a thread of its own: its payload may have to be fetched, and who gives it up may be watching time.
        if isinstance(message.payload, codec.Elsewhere):
            self.course.spawn("bury", lambda: super(Warp, self).bury(self._as_known(message), error, attempt))
        else:
            super().bury(message, error, attempt)

    def _as_known(self, message: Message) -> Message:
        payload: codec.Elsewhere = message.payload
        ancestor: Message = payload.lineage.ancestor
        return self.carrier.here(message) or ancestor

    # -- time -------------------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        with self._changed:
            self._start_clocks()
            again = [flight for due, flight in self._later if due <= now and not flight.done]
            self._later = [(due, flight) for due, flight in self._later if due > now]
            late = self._late(now)
            for flight in again:
                flight.due_since = now
                self._clocked += 1
        for flight in again:
            self.carrier.post(self, flight, wait=False)
        for flight in late:
            if self.course.over.is_set():
                return
            if flight.done or self._waited_for_others(flight):
                continue
            where, company = self.carrier.withdraw(self, flight)
            text = f"{self.name}: {self.node.timeout} s exceeded ({where})"
            for each in (flight, *company):
                self.failed(each, NodeTimeout(text, node=self.name, message_id=each.message.id))

    def _waited_for_others(self, flight: Flight) -> bool:
        """Move its clock to when its own time began; is it still in time then?"""
        flight.due_since = max(flight.due_since or 0.0, self.carrier.began(self, flight))
        return time.monotonic() - flight.due_since <= (self._allowed or 0.0)

    def _late(self, now: float) -> list[Flight]:
        allowed = self._allowed
        if allowed is None:
            return []
        return [f for f in self.flights.values() if f.due_since is not None and now - f.due_since > allowed]

    @property
    def _allowed(self) -> float | None:
        """Seconds a message may take; that its batch fills is not its own time."""
        batches, timeout = self.limits.batches, self.node.timeout
        return timeout + batches.wait if timeout is not None and batches.size > 1 else timeout
