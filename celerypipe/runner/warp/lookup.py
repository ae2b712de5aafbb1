"""What a warped node asks of the result cache before it sends a message: only what nobody computed yet is sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock

from celerypipe.cache.asked import Asked
from celerypipe.cache.node import KNOWN, WarpedNodeCache
from celerypipe.cache.question import Claim, Found
from celerypipe.message.message import Message
from celerypipe.runner.stations.station import Full
from celerypipe.runner.warp.flight import Done, Flight
from celerypipe.runner.warp.warp import Warp


class CacheLookup:
    """A message holds its place, in the window and in order, from the moment it is asked for; its time begins later.

    ``unknown`` does the work it is given in a thread that may wait for room; ``depart`` sends a message whose result
    nobody knows.
    """

    def __init__(
        self,
        cache: WarpedNodeCache,
        unknown: Callable[[Callable[[], None]], None],
        depart: Callable[[Warp, int, Message], None] = Warp.depart,
    ) -> None:
        self._cache = cache
        self._unknown = unknown
        self._depart = depart
        #: What is being computed for the cache, by the number of its message. Each leaves it once, under the lock.
        self._claims: dict[int, tuple[Claim, Asked]] = {}
        self._lock = Lock()

    def take(self, warp: Warp, message: Message, full: Full, *, again: bool) -> bool | None:
        asked = self._cache.asked(message)
        if asked is None:
            return None
        sequence = warp.hold_place(full)
        if sequence is None:
            return False
        self._cache.ask(asked, message, partial(self._answered, warp, sequence, message, asked), again=again)
        return True

    def _answered(self, warp: Warp, sequence: int, message: Message, asked: Asked, answer: Found | Claim) -> None:
        """The cache says what it knows; called by its thread, which must not wait."""
        if isinstance(answer, Found):
            try:
                self._found(warp, sequence, message, answer)
            except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
                warp.course.fail(error)
            return
        with self._lock:
            self._claims[sequence] = (answer, asked)
            warp.tally.misses += 1
        if warp.course.over.is_set():
            self.close()
        else:
            self._unknown(partial(self._depart, warp, sequence, message))

    def _found(self, warp: Warp, sequence: int, message: Message, found: Found) -> None:
        with self._lock:  # large ones come from several threads
            warp.tally.hit(found.size, found.seconds)
        if found.failure is None:
            warp.arrive(sequence, Done(message, found.outputs(message), known=True))
            return
        error = self._cache.error_of(found.failure, message)
        warp.failures.remembered(message, error)
        warp.arrive(sequence, Done(message, error=error, known=True), KNOWN)

    def through(self, flight: Flight, done: Done) -> None:
        with self._lock:
            claimed = self._claims.pop(flight.sequence, None)
        if claimed is None:
            return
        if done.error is not None:
            self._cache.failed(*claimed, done.error, flight.by)
        elif flight.done:
            self._cache.keep(*claimed, done.outputs, flight.message, seconds=done.ran, by=flight.by)
        else:  # it could not even be sent
            claimed[0].drop()

    def close(self) -> None:
        """The run is over: others may compute what is not computed now."""
        with self._lock:
            claims, self._claims = self._claims, {}
        for claim, _ in claims.values():
            claim.drop()
