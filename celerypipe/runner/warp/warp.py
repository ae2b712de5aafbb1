"""The stand-in of a warped node inside the runner: a message goes out, its result comes back, in order, in time.

A :class:`Warp` owns every message until its result is back. It does not know how messages travel: a carrier takes
them away and reports back with :meth:`Warp.returned` or :meth:`Warp.failed`.
"""

from __future__ import annotations

import threading
import time

from celerypipe import codec
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import CircuitOpen, CodecError, NodeError, NodeFailed, NodeTimeout
from celerypipe.mailbox.wire import ERRANDS
from celerypipe.message.message import Message
from celerypipe.runner.folder.progress import REMEMBERS
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.station import REPLAY, Full, Station
from celerypipe.runner.warp.carriage import Carrier, Lookup, Recipient
from celerypipe.runner.warp.circuit import Circuit
from celerypipe.runner.warp.clocks import Clocks
from celerypipe.runner.warp.flight import Done, Errand, Flight, Note
from celerypipe.runner.warp.handover import Handover
from celerypipe.runner.warp.retained import Retained


class Warp(Station):
    """A warped node in one run. ``recipient``: who gets its results; ``lookup``: who may know them, if anybody may."""

    def __init__(
        self,
        course: Course,
        node: NodeDefinition,
        carrier: Carrier[Warp],
        recipient: Recipient[Warp],
        lookup: Lookup[Warp] | None = None,
    ) -> None:
        super().__init__(course, node)
        self.limits = node.warp_configuration
        self.carrier: Carrier[Warp] = carrier
        self._recipient = recipient
        self._lookup = lookup
        self._handover = Handover(self, recipient)
        #: Do its messages and results pass the runner in any case, which has to see them?
        self.seen_here = lookup is not None
        #: Do results stay as they came until somebody wants them?
        self.keeps_sealed = recipient.sealed and carrier.by_reference and not self.seen_here
        #: The node that workers give what comes out of this one, before the runner hears of it.
        self.onward: Warp | None = None
        #: Mean seconds of ``update``, as replies report it, and of what went on from it.
        self.mean = 0.0
        #: When its last reply came: its bells are being heard.
        self.answered_at = 0.0
        #: Slots that bells are rung for now: so many messages can be in ``update``.
        self.rung = 1
        self.flights: dict[int, Flight] = {}
        self._clocks = Clocks(node)
        self._errands = ERRANDS
        self._joining = threading.Lock()
        #: Whether its queue answers; None where it runs here.
        self.circuit: Circuit | None = None
        #: What is kept of a stateful node; None as long as no worker said that it is one.
        self.retained: Retained | None = None

    @property
    def queue(self) -> str:
        return self.node.queue or ""

    @property
    def parallel(self) -> int:
        """How many of its messages may be in ``update`` at the same time."""
        slots = self.carrier.slots(self)
        if self.retained is not None:
            return 1
        return min(self.limits.parallel or slots, slots) if slots else 1

    def start(self) -> None:
        self.course.spawn(self.name, self._handover.live)

    def drained(self) -> None:
        super().drained()
        self._handover.wake()

    def close(self) -> None:
        super().close()
        self._handover.wake()
        if self._lookup is not None:
            self._lookup.close()

    def move(self, carrier: Carrier[Warp]) -> None:
        """Nobody serves its queue: its messages go with this carrier from now on."""
        self.carrier, self.circuit = carrier, None

    # -- in ---------------------------------------------------------------------------------------------------------

    @property
    def in_hand(self) -> int:
        return self._handover.unfinished

    def has_room(self, count: int) -> bool:
        # Behind the lock of a join somebody may be waiting.
        return not self.may_hold_up and not self.lacks_room(count=count)

    @property
    def may_hold_up(self) -> bool:
        """Do several links meet here? Who puts a message into a join does so under a lock."""
        return len(self.join.links) >= 2

    def offer(self, link: str, message: Message, *, full: Full = "wait") -> bool:
        self.received(message)
        if link == REPLAY:
            return self._accept(message, full, again=True)
        if not self.may_hold_up:
            return self._accept(message, full)
        with self._joining:
            try:
                ready = self.joined(link, message)
            except NodeFailed as error:
                self.course.fail(error)
                return False
            taken = True
            for one in ready:
                taken = self._accept(one, full) and taken
            return taken

    def _accept(self, message: Message, full: Full, tried: BaseException | None = None, *, again: bool = False) -> bool:
        """Send a message; or judge it at once, if it was ``tried`` already and that was raised."""
        if full == "refuse" and self.lacks_room():
            return False  # before its bytes are read, or written anywhere
        self.course.traces.came(self.name, message)
        if self.course.recording is not None:
            self.course.recording.came(self.name, self.carrier.here(message) or message)
        if self.places is not None and (refused := self.places.refusal(message, letter=again)) is not None:
            self.failures.judge(message, refused, self.node.retries)
            self._recipient.give_up(self, message, refused, -1)
            self.tally.outcomes[self.failures.fate] += 1
            self.course.left(message)
            return True
        if self._lookup is not None and (taken := self._lookup.take(self, message, full, again=again)) is not None:
            return taken
        flight = Flight(-1, message)
        if not self._load(flight):
            self.tally.outcomes[self.failures.fate] += 1
            self.course.left(message)
            return True
        with self.changed:
            if not self.wait_for_room(lambda: self.lacks_room(flight.size), full):
                return False
            flight.sequence = self._handover.take_place()
            self._take_off(flight)
            tried = tried or self.refusal(flight)
        self._send(flight, tried)
        return True

    def _load(self, flight: Flight) -> bool:
        """Give a message its bytes; False: it has none, and was judged for that."""
        try:
            self.carrier.load(self, flight, codec.encode_apart((flight.message,)))
        except CodecError as error:
            failure = NodeFailed(f"{self.name}: {error}", node=self.name, message_id=flight.message.id)
            failure.kind = "codec"
            failure.__cause__ = error
            self.failures.judge(flight.message, failure, self.node.retries)
            self._recipient.give_up(self, flight.message, failure, self.node.retries)
            return False
        return True

    def hold_place(self, full: Full) -> int | None:
        """Give a message its place before it is known whether it is sent; None: it has no room, or the run is over."""
        with self.changed:
            return self._handover.take_place() if self.wait_for_room(self.lacks_room, full) else None

    def depart(self, sequence: int, message: Message) -> None:
        """Send a message that holds its place: its time begins."""
        flight = Flight(sequence, message)
        if not self._load(flight):
            self._end(flight, Done(message))
            return
        with self.changed:
            if not self.wait_for_room(lambda: not self.carrier.room(flight.size), "wait", inside=True):
                return
            self._take_off(flight)
            refusal = self.refusal(flight)
        self._send(flight, refusal)

    def arrive(self, sequence: int, done: Done, note: str = "") -> None:
        """What comes of a message that holds its place is known, or nothing; ``note``: who knew that it fails."""
        if done.error is not None:
            self._recipient.give_up(self, done.message, done.error, -1, note)
        self._through(Flight(sequence, done.message), done)
        self.hand_over()

    def _take_off(self, flight: Flight) -> None:
        """In flight before it is sent: a result can be faster than the return from sending. The caller has the lock."""
        self.flights[flight.sequence] = flight
        self._clocks.add(flight)
        self._start_clocks()

    def _send(self, flight: Flight, tried: BaseException | None) -> None:
        self.tally.bytes += flight.size
        if tried is None:
            self.carrier.post(self, flight, wait=self._recipient.may_wait)
        else:
            self.failed(flight, tried)

    def refusal(self, flight: Flight, *, probe: bool = True) -> CircuitOpen | None:
        """Why a message is given up untried, or None; ``probe``: it may be the one that is tried."""
        circuit = self.circuit
        if circuit is None or circuit.state == "closed" or (self.limits.on_no_worker == "local" and not circuit.deadly):
            return None
        refusal = circuit.refusal(self.name, flight.message.id, probe=probe)
        flight.probe = refusal is None
        return refusal

    def lacks_room(self, size: int = 0, count: int = 1) -> bool:
        """Is there no room for so many messages more, of so many bytes?"""
        return self._handover.held + count > self.limits.window or not self.carrier.room(size)

    def _start_clocks(self) -> None:
        if self._clocks.waits:
            self._clocks.start(min(self.parallel, self.rung))

    def send_again(self, flight: Flight, message: Message) -> None:
        """The bytes of a message are lost: send it once more with others, as soon as nothing else of it is missing."""
        if not self._recipient.mends(self, flight, message):
            self.send_anew(flight, message)

    def send_anew(self, flight: Flight, message: Message) -> None:
        """Send a message once more, with other bytes."""
        flight.message, flight.blob, flight.data, flight.remaking = message, None, None, False
        self.carrier.post(self, flight)

    def send_unbegun(self, flight: Flight) -> None:
        """Nobody began it where it was: its time begins when its turn comes once more."""
        with self.changed:
            if flight.done or self.flights.get(flight.sequence) is not flight:
                return
            if flight.errand is None:
                self._clocks.postpone(flight)
                self._start_clocks()
        self.carrier.post(self, flight, wait=False)

    def send_alone(self, flight: Flight) -> None:
        """A batch with it in it was late: it is run by itself, which shows whose fault that was."""
        flight.alone = True
        self.send_unbegun(flight)

    def run_errand(self, message: Message, errand: Errand) -> None:
        """Run a message beside the others: it is nobody's turn, and its result goes nowhere else."""
        with self.changed:
            self._errands += 1
            flight = Flight(self._errands, message, errand=errand)
            self.carrier.load(self, flight, codec.encode_apart((message,)))
            self.flights[flight.sequence] = flight
        self.carrier.post(self, flight)

    def becomes_stateful(self) -> None:
        """Its worker says so: keep what a state is made of."""
        if self.course.progress is not None:
            self.course.progress.forbid(REMEMBERS.format(self.name))
        with self.changed:
            if self.retained is None:
                self.retained = Retained(self.changed, self.flights, self._handover.places)

    @property
    def takes_references(self) -> bool:
        """Can a message come to it whose payload was not fetched?"""
        return not (self.may_hold_up or self.seen_here) and self.carrier.by_reference and self.retained is None

    @property
    def sends_references(self) -> bool:
        """Do its results go on to other warped nodes only, so that nobody here needs their bytes?"""
        return (
            bool(self.outlets)
            and not (self.is_slow or self.seen_here)
            and self.retained is None  # what it made cannot be made again
            and all(isinstance(each.station, Warp) and each.station.takes_references for each in self.outlets)
        )

    @property
    def is_slow(self) -> bool:
        """Does handing over its results take time on its own?"""
        return self._handover.slow

    def go_on_to(self, onward: Warp | None) -> None:
        """Workers may give this node what comes out, if there is one, before the runner hears of it."""
        self.onward = onward

    # -- back -------------------------------------------------------------------------------------------------------

    def returned(self, flight: Flight, done: Done) -> None:
        """The result of a message is here; :meth:`hand_over` passes it on. Only the first one counts."""
        if not self._settle(flight, answered=True):
            return
        if flight.errand is not None:
            flight.errand(done.outputs, None)
            return
        self._count(done, time.monotonic() - flight.sent_at)
        self._through(flight, done)

    def _through(self, flight: Flight, done: Done) -> None:
        """A message is through here: with its result, or given up."""
        if self._lookup is not None:
            self._lookup.through(flight, done)
        if flight.holder and done.error is None:
            self.course.traces.taken_over(self.name, done.message, flight.holder, done.ran + done.warmed + done.beyond)
        self._trace(done, flight.sent_at, flight.by)
        if self.course.recording is not None:
            self._record(done)
        self._handover.keep(flight.sequence, done)
        if done.error is None and self.course.watchers:
            self.course.tell("message_done", self.name, done.message, done.ran)

    def _record(self, done: Done) -> None:
        recording = self.course.recording
        assert recording is not None  # noqa: S101  # whoever calls it looked
        if done.error is not None:
            recording.failed(self.name, done.message, done.error)
        else:
            recording.made(self.name, done.message, [self.carrier.here(each) or each for each in done.outputs])

    def _trace(self, done: Done, sent: float, by: str) -> None:
        error, outcome = done.error, "cached" if done.known else "done"
        if error is not None:
            outcome = error.kind if isinstance(error, NodeError) else type(error).__name__
        times, worker = (done.waited, done.warmed, done.ran), done.by or by
        traces = self.course.traces
        traces.through(self.name, done.message, outcome, sent=sent, times=times, worker=worker, beyond=done.beyond)

    def _end(self, flight: Flight, done: Done) -> None:
        """A message is through, says a thread that must not pass results on, such as the one that watches time."""
        with self.changed:
            self._through(flight, done)
            self._handover.leave()

    def hand_over(self) -> None:
        """Pass on the results whose turn it is; who brought some calls it after a batch of them."""
        self._handover.hand_over()

    def pass_through(self, link: str, done: Done, *, crowd: bool) -> None:
        """Take a message from a link, and with it what this node made of it; :meth:`hand_over` passes that on."""
        full: Full = "crowd" if crowd else "wait"
        self.received(done.message)
        if done.error is not None:
            self._accept(done.message, full, done.error)
            return
        with self.changed:
            if not self.wait_for_room(lambda: self._handover.held >= self.limits.window, full):
                return
            sequence = self._handover.take_place()
        self._count(done, 0.0)
        self._trace(done, 0.0, done.by)
        self._handover.keep(sequence, done)
        if self.course.watchers:
            self.course.tell("message_done", self.name, done.message, done.ran)

    def _count(self, done: Done, seconds: float) -> None:
        if done.console is not None:
            self.printed(done.message, done.console)
        if self.circuit is not None:
            self.circuit.answered()
        total = done.ran + done.beyond
        self.mean = 0.8 * self.mean + 0.2 * total if self.mean else total
        self.tally.bytes += done.size
        self.tally.came_back(done.waited, done.ran, max(0.0, seconds - done.waited - total - done.warmed))
        if done.warmed:
            self.tally.warmed(done.warmed)

    def noted(self, flight: Flight, note: Note) -> None:
        """A message is through here, and a node further on is at work on what came out: its time counts now."""
        with self.changed:
            if not flight.done and self.flights.get(flight.sequence) is flight:
                self._clocks.note(flight, note)

    def failed(self, flight: Flight, error: BaseException) -> None:
        """An attempt failed: try again later, or give the message up by ``on_error``."""
        if not self._settle(flight):
            return
        if flight.errand is not None:
            flight.errand((), error)
            return
        if isinstance(error, NodeError) and error.console is not None:
            self.printed(flight.message, error.console, error)
        if self.circuit is not None:
            self.circuit.judge(error, unserved=flight.unserved)
        delay = self.failures.judge(flight.message, error, flight.attempt)
        if delay is None:
            self._recipient.give_up(self, flight.message, error, flight.attempt)
            with self.changed:
                self._end(flight, Done(flight.message, error=error))
                gone = self.retained.give_up(flight.sequence, flight.message) if self.retained is not None else None
            if gone is not None:
                self.carrier.post(self, gone, wait=False)
            return
        again = Flight(flight.sequence, flight.message, flight.attempt + 1, flight.size, alone=True)
        with self.changed:
            self.flights[again.sequence] = again
            self._clocks.later(again, delay)

    def drop(self, flight: Flight, error: BaseException) -> None:
        """Nobody waits for a message any more: its result counts for nothing."""
        if self._settle(flight):
            self._end(flight, Done(flight.message, error=error))

    def _settle(self, flight: Flight, *, answered: bool = False) -> bool:
        with self.changed:
            if flight.done or self.flights.get(flight.sequence) is not flight:
                return False
            flight.done = True
            del self.flights[flight.sequence]
            self._clocks.stop(flight)
            self._start_clocks()
            kept = answered and self.retained is not None and not self.limits.pinned
            if kept and self.retained is not None:
                self.retained.keep(flight)
        if not kept:
            self.carrier.settled(self, flight)
        return True

    def left(self) -> dict[str, int]:
        """What the run leaves of the messages that came, by outcome; asked once it is over."""
        with self.lock:
            apart = 0 if self.finished.is_set() else self.at_door + self.join.left()
            unmatched = self.tally.unmatched if self.finished.is_set() else self.join.unmatched
            return {"unmatched": unmatched, "unfinished": self._handover.places - self._handover.through + apart}

    # -- time -------------------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        with self.changed:
            self._start_clocks()
            again = self._clocks.again(now)
            late = self._clocks.late(self.flights.values(), now)
        for flight in again:
            refusal = self.refusal(flight)
            if refusal is None:
                self.carrier.post(self, flight, wait=False)
            else:
                self.failed(flight, refusal)
        for flight in late:
            if self.course.over.is_set():
                return
            if flight.due_since is None:  # it was taken back behind one of those before it
                continue
            note = flight.note
            if note is None and not flight.done:  # what it waited behind others is not its own time
                began = self.carrier.began(self, flight)
                flight.due_since = max(flight.due_since or 0.0, began)
            # Asking takes a while: it may be through by now, or a note may have come.
            if flight.done or flight.note is not note or not self._clocks.is_late(flight, time.monotonic()):
                continue
            taken = self.carrier.withdraw(self, flight)
            if taken is None:
                continue
            where, batch = taken
            if note is not None:
                self.returned(flight, note.done)
                with self.changed:
                    self._handover.leave()
                continue
            if batch:  # it is late, and nobody knows through which message
                for each in batch:
                    self.send_alone(each)
                continue
            text = f"{self.name}: {self.node.timeout} s exceeded ({where})"
            error = NodeTimeout(text, node=self.name, message_id=flight.message.id)
            error.console = flight.console
            self.failed(flight, error)
