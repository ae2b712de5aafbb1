"""A warped node whose results are remembered: the runner asks the result cache, and sends what nobody computed yet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from celerypipe.cache.asked import Asked
from celerypipe.cache.node import KNOWN, WarpedNodeCache
from celerypipe.cache.question import Claim, Found
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.message.message import Message
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.station import REPLAY, Full
from celerypipe.runner.warp.carriage import Carrier
from celerypipe.runner.warp.flight import Done, Flight
from celerypipe.runner.warp.warp import Warp


class CachedWarp(Warp):
    """A message holds its place, in the window and in order, from the moment it is asked for; its time begins later.

    The bytes of what is asked and of what comes back have to be seen here, so nothing goes by reference and nothing
    goes on from or to it on the worker. ``unknown`` does the work it is given in a thread that may wait for room.
    """

    seen_here = True

    def __init__(
        self,
        course: Course,
        node: NodeDefinition,
        carrier: Carrier[Warp],
        cache: WarpedNodeCache,
        unknown: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__(course, node, carrier)
        self.cache = cache
        self._unknown = unknown
        #: What is being computed for the cache, by the number of its message. Each leaves it once, under the lock.
        self._claims: dict[int, tuple[Claim, Asked]] = {}

    @property
    def takes_references(self) -> bool:
        return False

    @property
    def sends_references(self) -> bool:
        return False

    # -- in ---------------------------------------------------------------------------------------------------------

    def offer(self, link: str, message: Message, *, full: Full = "wait") -> bool:
        if link != REPLAY:
            return super().offer(link, message, full=full)
        self.received(message)
        return self._ask(message, full, again=True)

    def _accept(self, message: Message, full: Full, tried: BaseException | None = None) -> bool:
        return self._ask(message, full)

    def _ask(self, message: Message, full: Full, *, again: bool = False) -> bool:
        if full == "refuse" and self._lacks_room():
            return False  # before its bytes are read
        asked = self.cache.asked(message)
        if asked is None:
            return super()._accept(message, full)
        with self._changed:
            if not self._wait_for_room(self._lacks_room, full):
                return False
            sequence = self._take_place()
        self.cache.ask(asked, message, partial(self._answered, sequence, message, asked), again=again)
        return True

    def _answered(self, sequence: int, message: Message, asked: Asked, answer: Found | Claim) -> None:
        """The cache says what it knows; called by its thread, which must not wait."""
        if isinstance(answer, Found):
            try:
                self._found(sequence, message, answer)
            except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
                self.course.fail(error)
            return
        with self._changed:
            self._claims[sequence] = (answer, asked)
            self.tally.misses += 1
        if self.course.over.is_set():
            self._let_go()
        else:
            self._unknown(partial(self._compute, sequence, message))

    def _found(self, sequence: int, message: Message, found: Found) -> None:
        with self._changed:  # large ones come from several threads
            self.tally.hit(found.size, found.seconds)
        if found.failure is None:
            self._keep(sequence, Done(message, found.outputs(message)))
            self.hand_over()
            return
        error = self.cache.error_of(found.failure, message)
        self._give_up_known(message, error, KNOWN)
        self._keep(sequence, Done(message, error=error))
        self.hand_over()

    def _compute(self, sequence: int, message: Message) -> None:
        """Send a message whose result nobody knows; its time begins."""
        flight = Flight(sequence, message)
        if not self._load(flight):
            with self._changed:
                self._through(flight, Done(message))
                self._leave()
            return
        with self._changed:
            if not self._wait_for_room(lambda: not self.carrier.room(flight.size), "wait"):
                return
            self._take_off(flight)
            refusal = self.refusal(flight)
        self._send(flight, refusal)

    # -- back -------------------------------------------------------------------------------------------------------

    def _through(self, flight: Flight, done: Done) -> None:
        with self._changed:
            claimed = self._claims.pop(flight.sequence, None)
        if claimed is not None:
            if done.error is not None:
                self.cache.failed(*claimed, done.error, flight.by)
            elif flight.done:
                self.cache.keep(*claimed, done.outputs, flight.message, seconds=done.ran, by=flight.by)
            else:  # it could not even be sent
                claimed[0].drop()
        super()._through(flight, done)

    def close(self) -> None:
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        """The run is over: others may compute what is not computed now."""
        with self._changed:
            claims, self._claims = self._claims, {}
        for claim, _ in claims.values():
            claim.drop()
