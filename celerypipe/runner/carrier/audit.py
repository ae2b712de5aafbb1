"""The audit of a run: what is in flight, compared with what Redis holds.

What is neither in its mailbox nor answered is sent again. What is still there comes back by claim, never by that. Only
heads are looked at: whoever reads the rest looks at its signature, and what is refused then starts another audit.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from celerypipe.mailbox.mailbox import heads, waiting
from celerypipe.mailbox.wire import NOTE, as_published
from celerypipe.redis.connection import Client
from celerypipe.runner.carrier.doubts import Doubts
from celerypipe.runner.carrier.holdings import Holdings
from celerypipe.runner.carrier.sender import Sender
from celerypipe.runner.carrier.states import States
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp

#: A message that is out for so long starts an audit, and so long passes before the next.
AUDIT_AFTER = 3.0


class Audit:
    """Looks for the lost messages of one run, at once where there are doubts. The caller holds the sender's lock."""

    def __init__(self, holdings: Holdings, states: States, sender: Sender, doubts: Doubts) -> None:
        self._holdings = holdings
        self._states = states
        self._sender = sender
        self._doubts = doubts
        self._looked: dict[str, float] = {}

    def is_due(self, warp: Warp, oldest: float) -> bool:
        """Is it time? ``oldest``: when its oldest message was sent, by ``time.monotonic()``."""
        waited = time.monotonic() - max(oldest, self._looked.get(warp.name, 0.0))
        return waited > AUDIT_AFTER or warp.name in self._doubts

    def missing(self, client: Client, warps: Sequence[Warp]) -> list[tuple[Warp, Flight]]:
        """Return what is to be sent again; of a stateful node nothing: it goes back to its snapshot instead."""
        queued = self._sender.waits()
        for warp in warps:
            self._looked[warp.name] = time.monotonic()
            self._doubts.discard(warp.name)
        out = [
            [each for each in list(warp.flights.values()) if each.sent_at and each not in queued and not each.remaking]
            for warp in warps
        ]
        # The mailboxes first: what leaves them after this look is in the reply stream before the next one.
        there = waiting(client, [self._holdings.mailboxes[warp.name] for warp in warps])
        stuck = self._states.missing(client, dict(zip(warps, there, strict=True)))
        answered = self._answered(client)
        queued = self._sender.waits()  # what was given back meanwhile was read, and is about to be sent
        found: list[tuple[Warp, Flight]] = []
        for warp, flights, places in zip(warps, out, there, strict=True):
            missing = [each for each in _missing(warp, flights, places, answered) if each not in queued]
            retained = warp.retained
            if retained is None or warp.limits.pinned:
                found += [(warp, flight) for flight in missing]
            elif missing or warp in stuck:
                retained.doubtful = True  # its state may be past one of them: go back to where it was not
        return found

    def _answered(self, client: Client) -> set[tuple[str, int, int]]:
        """What has a result that nobody has read yet: node, number and try of its message."""
        (items,) = heads(client, [client.names.reply(self._holdings.run)])
        return {
            (published.node, reply.sequence, reply.attempt)
            for item in items
            if (published := as_published(item))
            for reply in published.results
            if reply.kind != NOTE
        }


def _missing(
    warp: Warp,
    flights: Iterable[Flight],
    there: Mapping[tuple[int, int], str],
    answered: Container[tuple[str, int, int]],
) -> Iterator[Flight]:
    """Those that are neither in their mailbox nor answered."""
    for flight in flights:
        place = (flight.sequence, flight.attempt)
        if place in there:
            flight.entry = flight.entry or there[place].encode()
        elif (warp.name, *place) not in answered and not flight.done:
            yield flight
