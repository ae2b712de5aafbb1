"""The stand-in of one function in a session: its calls go out as messages, and each result settles its call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from celerypipe.cache.node import WarpedNodeCache
from celerypipe.cache.question import Found
from celerypipe.errors import CelerypipeError, NodeFailed, RunCancelled
from celerypipe.message.message import Message
from celerypipe.runner.functions.call import Call
from celerypipe.runner.functions.function import CallDefinition
from celerypipe.runner.functions.outcome import payload
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.cached import CachedWarp
from celerypipe.runner.warp.carriage import Carrier
from celerypipe.runner.warp.flight import Done, Flight
from celerypipe.runner.warp.warp import Warp

#: The link that calls come in by.
CALLS = "(calls)"


class Settling(Protocol):
    """What a call warp tells its session."""

    def succeeded(self, warp: CallWarp, call: Call[Any], done: Done) -> None:
        """A result is here."""

    def failed(self, call: Call[Any], error: BaseException) -> None:
        """A call failed for good."""

    def dispatch(self) -> None:
        """There may be room for calls that wait."""

    def mend(self, warp: CallWarp, flight: Flight, call: Call[Any]) -> None:
        """Its worker could not get the bytes of an input."""


class CallWarp(Warp):
    """A function in a session. ``calls`` are those that are out, by message; ``queued`` those that wait for room."""

    may_wait = False

    def __init__(self, course: Course, node: CallDefinition, carrier: Carrier[Warp], session: Settling) -> None:
        Warp.__init__(self, course, node, carrier)
        self._begin(session)

    def _begin(self, session: Settling) -> None:
        self.session = session
        self.calls: dict[str, Call[Any]] = {}
        self.queued: deque[Call[Any]] = deque()

    @property
    def keeps_sealed(self) -> bool:  # type: ignore[override]  # what a Warp never does, this one does where it can
        """Results stay as they came, unless they are made here, or remembered."""
        return self.carrier.by_reference and not self.seen_here

    def fits(self, call: Call[Any]) -> bool:
        """Is there room for it now?"""
        return not self._lacks_room(call._size)

    def take(self, call: Call[Any]) -> bool:
        """Send a call; False: there was no room in the end."""
        arguments, inputs = call._arguments, call.outcomes
        if call.done():  # it was cancelled, and its arguments with it
            return True
        try:
            message = Message(payload(arguments, inputs, opened=self.seen_here))
        except CelerypipeError as error:  # what came of an input cannot be read
            self.session.failed(call, error)
            return True
        for _, outcome in inputs:
            if not self.seen_here and outcome.sealed is not None and outcome.sealed.blob is not None:
                outcome.sealed.blob.readers += 1  # for good: nobody says when its worker maps an input no more
        call._message_id = message.id
        self.calls[message.id] = call
        if self.offer(CALLS, message, full="refuse"):
            return True
        self.calls.pop(message.id, None)
        call._message_id = ""
        return False

    def flight_of(self, call: Call[Any]) -> Flight | None:
        """Return where a call is on its way, if it is."""
        flights = list(self.flights.values())
        return next((flight for flight in flights if flight.message.id == call._message_id), None)

    def drop(self, flight: Flight) -> None:
        """Nobody waits for it any more: its result counts for nothing."""
        self.calls.pop(flight.message.id, None)
        if self._settle(flight):
            with self._changed:
                self._through(flight, Done(flight.message, error=RunCancelled(f"{self.name} was cancelled")))
                self._leave()

    # -- what a warp does with results -------------------------------------------------------------------------------

    def _keep(self, sequence: int, done: Done) -> None:
        call = self.calls.get(done.message.id)
        if call is not None:
            call._done = done
        super()._keep(sequence, done)

    def _through(self, flight: Flight, done: Done) -> None:
        call = self.calls.get(flight.message.id)
        if call is not None:
            call._by = flight.by
        super()._through(flight, done)

    def pass_on(
        self, outputs: Sequence[Message], parent: Message | None, *, number: int | None = None, crowd: bool = False
    ) -> None:
        """Settle the call of a message."""
        call = self.calls.pop(parent.id, None) if parent is not None else None
        if call is None or call._done is None:
            return
        self.tally.sent += 1
        done, call._done = call._done, None
        self.session.succeeded(self, call, done)

    def _give_up(self, message: Message, error: BaseException, attempt: int, note: str = "") -> None:
        call = self.calls.pop(message.id, None)
        if call is not None:
            self.session.failed(call, error)

    def _pass_on_all(self, *, wait: bool) -> None:
        super()._pass_on_all(wait=wait)
        self.session.dispatch()

    def send_again(self, flight: Flight, message: Message) -> None:
        call = self.calls.get(message.id)
        if len(message.payload) < 3:
            super().send_again(flight, message)
        elif call is None:  # it is made again itself, and whoever wants that tries it once more
            text = f"{self.name}: an input of it was lost once more"
            self.failed(flight, NodeFailed(text, node=self.name, message_id=message.id))
        elif not flight.remaking:
            flight.remaking = True
            self.session.mend(self, flight, call)

    def sent_anew(self, flight: Flight, message: Message) -> None:
        """Send a call once more, its inputs are there again."""
        super().send_again(flight, message)


class CachedCallWarp(CallWarp, CachedWarp):
    """A function whose results are remembered: what is asked, and what comes back, has to be seen here."""

    def __init__(
        self,
        course: Course,
        node: CallDefinition,
        carrier: Carrier[Warp],
        session: Settling,
        cache: WarpedNodeCache,
        unknown: Callable[[Callable[[], None]], None],
    ) -> None:
        CachedWarp.__init__(self, course, node, carrier, cache, unknown)
        self._begin(session)

    def _found(self, sequence: int, message: Message, found: Found) -> None:
        call = self.calls.get(message.id)
        if call is not None:
            call._cached = True
        super()._found(sequence, message, found)

    def _compute(self, sequence: int, message: Message) -> None:
        call = self.calls.get(message.id)
        if call is not None and not call.done():
            super()._compute(sequence, message)
            if call.done():  # it was cancelled this moment, and nobody saw where it was
                call._desk.withdraw(call)
            return
        self.calls.pop(message.id, None)  # it was cancelled meanwhile
        with self._changed:
            self._through(Flight(sequence, message), Done(message))
            self._leave()
