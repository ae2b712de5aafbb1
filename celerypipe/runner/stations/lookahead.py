"""What a node that runs here asks of the result cache: it computes only what the cache does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from celerypipe.cache.asked import Asked
from celerypipe.cache.node import KNOWN, NodeCache
from celerypipe.cache.question import Claim, Found
from celerypipe.message.message import Message
from celerypipe.runner.stations.backlog import Backlog
from celerypipe.runner.stations.station import REPLAY, Station


@dataclass(slots=True, eq=False)
class Ahead:
    """A message that waits for its turn: what it asks, if anything, and what the cache answered.

    ``look``: it is only looked for, so far; nobody else waits until it is computed here. ``again``: it failed before.
    """

    message: Message
    asked: Asked | None
    again: bool
    look: bool = True
    asking: bool = False
    answer: Found | Claim | None = None


class Lookahead:
    """Asks for all that waits at once, before the node gets any of it; messages leave in their order.

    It claims only what it is about to compute: who claims ahead and waits for others at the same time may wait for
    somebody who waits for him. ``inbox``: what came, by its link; the station's lock guards it, and all in here.
    """

    def __init__(self, station: Station, inbox: Backlog[tuple[str, Message]], cache: NodeCache) -> None:
        self._station = station
        self._inbox = inbox
        self._cache = cache
        self._changed = station.changed
        self._ahead: Backlog[Ahead] = Backlog()
        #: Messages that are taken in just now, and their bytes.
        self._taking = self._taking_bytes = 0
        #: What is being computed for the cache: its claim, what it asks, and its input as that came.
        self._claim: tuple[Claim, Asked, Message] | None = None

    def __len__(self) -> int:
        return self._taking + len(self._ahead)

    @property
    def bytes(self) -> int:
        """About how many bytes the messages in here are."""
        return self._taking_bytes + self._ahead.bytes

    # -- the thread -------------------------------------------------------------------------------------------------

    def next(self) -> Message | None:
        """The next message that is to be computed; what is known is handed on meanwhile."""
        while (first := self._first()) is not None:
            answer = first.answer
            if isinstance(answer, Found):
                self._leave_ahead()
                self._pass_on_found(first.message, answer)
            elif first.asked is not None and first.look:
                self._ask(first, first.asked, look=False)
            else:
                self._leave_ahead()
                return self._begin(first)
        return None

    def _first(self) -> Ahead | None:
        """Wait until it is known what is to be done with the first message that waits; None at the end."""
        while not self._station.course.over.is_set():
            self._station.obey()
            self._take_in()
            with self._changed:
                if self._ahead and not self._ahead.first().asking:
                    return self._ahead.first()
                if self._inbox:
                    continue
                if not self._ahead and self._station.ended:
                    return None
                self._changed.wait(0.5)
        return None

    def _take_in(self) -> None:
        """Ask for all that came."""
        with self._changed:
            self._taking_bytes = self._inbox.bytes
            taken = [self._inbox.take() for _ in range(len(self._inbox))]
            self._taking = len(taken)
        new: list[Ahead] = []
        for link, message in taken:
            self._station.received(message)
            joined = (message,) if link == REPLAY else self._station.joined(link, message)
            new += [Ahead(one, self._cache.asked(one), link == REPLAY) for one in joined]
        alone = len(new) == 1 and not self._ahead
        with self._changed:
            for each in new:
                self._ahead.add(each, each.message)
            self._taking = self._taking_bytes = 0
            self._changed.notify_all()
        for each in new:
            if each.asked is not None and not self._cache.refresh:
                self._ask(each, each.asked, look=not alone)

    def _ask(self, ahead: Ahead, asked: Asked, *, look: bool) -> None:
        def answered(answer: Found | Claim | None) -> None:
            with self._changed:
                ahead.answer, ahead.asking = answer, False
                self._changed.notify_all()
            if isinstance(answer, Claim) and self._station.course.over.is_set():
                answer.drop()

        ahead.look, ahead.asking = look, True
        self._cache.ask(asked, ahead.message, answered, again=ahead.again, peeks=look)

    def _leave_ahead(self) -> None:
        with self._changed:
            self._ahead.take()
            self._changed.notify_all()

    def _begin(self, first: Ahead) -> Message:
        if isinstance(first.answer, Claim) and first.asked is not None:
            self._station.tally.misses += 1
            with self._changed:
                self._claim = (first.answer, first.asked, first.message)
        return first.message

    def _pass_on_found(self, message: Message, found: Found) -> None:
        station = self._station
        station.tally.hit(found.size, found.seconds)
        station.course.traces.through(station.name, message, "cached" if found.failure is None else found.failure.kind)
        if found.failure is None:
            if station.course.watchers:
                station.course.tell("message_done", station.name, message, 0.0)
            station.pass_on(found.outputs(message), message)
        else:
            error = self._cache.error_of(found.failure, message)
            station.failures.remembered(message, error)
            station.failures.give_up(message, error, -1, note=KNOWN)
        station.course.left(message)

    def renew(self) -> None:
        """The node was loaded anew: ask for what waits once more, as its code is now. In the thread."""
        with self._changed:
            # Nothing of it is claimed: what is claimed is computed next.
            for each in [self._ahead.take() for _ in range(len(self._ahead))]:
                self._ahead.add(Ahead(each.message, self._cache.asked(each.message), each.again), each.message)
            waiting = [(each, each.asked) for each in self._ahead.all() if each.asked is not None]
        for each, asked in waiting if not self._cache.refresh else ():
            self._ask(each, asked, look=True)

    # -- what came of it --------------------------------------------------------------------------------------------

    def computed(self, outputs: Sequence[Message], seconds: float) -> None:
        """The node is through with a message."""
        if (claimed := self._take_claim()) is not None:
            claim, asked, came = claimed
            self._cache.keep(claim, asked, outputs, came, seconds=seconds)

    def gave_up(self, error: BaseException) -> None:
        """Nothing will come of a message."""
        if (claimed := self._take_claim()) is not None:
            self._cache.failed(claimed[0], claimed[1], error)

    def _take_claim(self) -> tuple[Claim, Asked, Message] | None:
        with self._changed:
            claimed, self._claim = self._claim, None
        return claimed

    def close(self) -> None:
        """The run is over: others may compute what is not computed now."""
        with self._changed:
            claims = [each.answer for each in self._ahead.all() if isinstance(each.answer, Claim)]
        claimed = self._take_claim()
        for claim in (*claims, *((claimed[0],) if claimed is not None else ())):
            claim.drop()
