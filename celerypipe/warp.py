"""The stand-in of a warped node inside the runner: a message goes out, its result comes back, in order, in time.

A :class:`Warp` owns every message until its result is back. It does not know how messages travel: a carrier takes
them away and reports back with :meth:`Warp.returned` or :meth:`Warp.failed`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from celerypipe import codec
from celerypipe.errors import CodecError, NodeFailed, NodeTimeout
from celerypipe.message import Message
from celerypipe.pipeline import NodeDefinition
from celerypipe.station import Course, Waiting


@dataclass(slots=True, eq=False)
class Flight:
    """A message on its way to a worker and back. Times are ``time.monotonic()``; ``entry`` is its id in the mailbox."""

    sequence: int
    message: Message
    attempt: int = 0
    size: int = 0
    sent_at: float = 0.0
    due_since: float | None = None
    entry: bytes = b""
    blob: str = ""
    data: bytes | None = None
    done: bool = False


class Carrier(Protocol):
    """Takes the messages of warped nodes away and brings their results back."""

    def room(self, size: int) -> bool:
        """May so many bytes more be in flight?"""

    def post(self, warp: Warp, flight: Flight) -> None:
        """Take a message; never blocks for long."""

    def began(self, warp: Warp, flight: Flight) -> float:
        """When its own time began, as far as known: what it waited behind others of this node does not count."""

    def withdraw(self, warp: Warp, flight: Flight) -> str:
        """Take it back, so that nobody starts it; return where its time went, for the error's text."""

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
        self._results: dict[int, tuple[Message, Sequence[Message]]] = {}
        self._arrived: deque[int] = deque()
        self._held = 0
        self._sequence = 0
        self._next_out = 0
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

    def offer(self, link: str, message: Message, *, block: bool = True) -> bool:
        self.received(message)
        if len(self.join.links) < 2:
            return self._accept(message, block=block)
        with self._joining:
            try:
                ready = self.join.put(link, message)
            except NodeFailed as error:
                self.course.fail(error)
                return False
            taken = True
            for one in ready:
                taken = self._accept(one, block=block) and taken
            return taken

    def _accept(self, message: Message, *, block: bool) -> bool:
        flight = Flight(-1, message)
        try:
            flight.data = codec.encode_joined((message,))
        except CodecError as error:
            failure = NodeFailed(f"{self.name}: {error}", node=self.name, message_id=message.id)
            failure.kind = "codec"
            failure.__cause__ = error
            self.judge(message, failure, self.node.retries)
            return True
        flight.size = len(flight.data)
        with self._changed:
            if not self._wait_for_room(
                lambda: self._held >= self.limits.window or not self.carrier.room(flight.size), block=block
            ):
                return False
            self._held += 1
            flight.sequence, self._sequence = self._sequence, self._sequence + 1
            # In flight before it is sent: a result can be faster than the return from sending.
            self.flights[flight.sequence] = flight
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

    # -- back -------------------------------------------------------------------------------------------------------

    def returned(self, flight: Flight, outputs: Sequence[Message], *, waited: float, ran: float) -> None:
        """The result of a message is here. Only the first one counts."""
        if not self._settle(flight):
            return
        total = time.monotonic() - flight.sent_at
        self.mean = 0.8 * self.mean + 0.2 * ran if self.mean else ran
        self.tally.waiting.add(waited)
        self.tally.running.add(ran)
        self.tally.transfer.add(max(0.0, total - waited - ran))
        self._put_out(flight, outputs)

    def failed(self, flight: Flight, error: BaseException) -> None:
        """An attempt failed: try again later, or give the message up by ``on_error``."""
        if not self._settle(flight):
            return
        delay = self.judge(flight.message, error, flight.attempt)
        if delay is None:
            self._put_out(flight, ())
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
            self._start_clocks()
        self.carrier.settled(self, flight)
        return True

    def _put_out(self, flight: Flight, outputs: Sequence[Message]) -> None:
        with self._changed:
            self._results[flight.sequence] = (flight.message, outputs)
            if not self.limits.ordered:
                self._arrived.append(flight.sequence)
            self._changed.notify_all()

    def _deliver(self) -> None:
        """The thread that hands results on, in the order their messages came in."""
        try:
            while (result := self._next_result()) is not None:
                parent, outputs = result
                self.pass_on(outputs, parent)
                with self._changed:
                    self._held -= 1
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
            self.course.fail(error)
            return
        if not self.course.over.is_set():
            self.finish()

    def _next_result(self) -> tuple[Message, Sequence[Message]] | None:
        with self._changed:
            while not self.course.over.is_set():
                if self.limits.ordered and self._next_out in self._results:
                    self._next_out += 1
                    return self._results.pop(self._next_out - 1)
                if self._arrived:
                    return self._results.pop(self._arrived.popleft())
                if self._ended and not self._held:
                    return None
                self._changed.wait(0.5)
        return None

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
            self.carrier.post(self, flight)
        for flight in late:
            if self.course.over.is_set():
                return
            if self._waited_for_others(flight):
                continue
            where = self.carrier.withdraw(self, flight)
            text = f"{self.name}: {self.node.timeout} s exceeded ({where})"
            self.failed(flight, NodeTimeout(text, node=self.name, message_id=flight.message.id))

    def _waited_for_others(self, flight: Flight) -> bool:
        """Move its clock to when its own time began; is it still in time then?"""
        flight.due_since = max(flight.due_since or 0.0, self.carrier.began(self, flight))
        return time.monotonic() - flight.due_since <= (self.node.timeout or 0.0)

    def _late(self, now: float) -> list[Flight]:
        timeout = self.node.timeout
        if timeout is None:
            return []
        return [f for f in self.flights.values() if f.due_since is not None and now - f.due_since > timeout]
