"""The audit of a run: what is in flight, compared with what Redis holds.

What is neither in its mailbox nor answered is sent again. What is still there comes back by claim, never by that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.wire import NOTE, as_published
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import Signer
from celerypipe.runner.carrier.states import States
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp

#: A message that is out for so long starts an audit, and so long passes before the next.
AUDIT_AFTER = 3.0


class Audit:
    """Looks for the lost messages of one run. The caller holds the lock of the sender.

    ``waits``: the messages that are not sent yet; ``signer_of`` a node: who signs its results, if anybody does.
    """

    def __init__(
        self,
        run: str,
        states: States,
        waits: Callable[[], Collection[Flight]],
        signer_of: Callable[[str], Signer] | None,
    ) -> None:
        self._run = run
        self._states = states
        self._waits = waits
        self._signer_of = signer_of
        self._looked: dict[str, float] = {}
        self._doubted: set[str] = set()

    def doubt(self, node: str) -> None:
        """Something of this node was refused: look at once what that stood in the place of."""
        self._doubted.add(node)

    def is_due(self, warp: Warp, oldest: float) -> bool:
        """Is it time? ``oldest``: when its oldest message was sent, by ``time.monotonic()``."""
        waited = time.monotonic() - max(oldest, self._looked.get(warp.name, 0.0))
        return waited > AUDIT_AFTER or warp.name in self._doubted

    def missing(self, client: Client, mailbox: Mailbox, warp: Warp) -> list[Flight]:
        """Return what is to be sent again; of a stateful node nothing: it goes back to its snapshot instead."""
        self._looked[warp.name] = time.monotonic()
        self._doubted.discard(warp.name)
        queued = self._waits()
        out = [f for f in list(warp.flights.values()) if f.sent_at and f not in queued and not f.remaking]
        # The mailbox first: what leaves it after this look is in the reply stream before the next one.
        there = mailbox.waiting(client)
        retained = warp.retained
        if retained is not None and self._states.misses(client, warp, there):
            retained.doubtful = True
            return []
        answered = self._answered(client)
        missing = []
        for flight in out:
            place = (flight.sequence, flight.attempt)
            if place in there:
                flight.entry = flight.entry or there[place].encode()
            elif (warp.name, *place) not in answered and not flight.done:
                missing.append(flight)
        if missing and retained is not None and not warp.limits.pinned:
            retained.doubtful = True  # its state may be past one of them: go back to where it was not
            return []
        return missing

    def _answered(self, client: Client) -> set[tuple[str, int, int]]:
        """What has a result that nobody has read yet: node, number and try of its message."""
        return {
            (published.node, reply.sequence, reply.attempt)
            for item in client.call("XRANGE", keys.reply(self._run), "-", "+")
            if (published := as_published(item, self._signer_of))
            for reply in published.results
            if reply.kind != NOTE
        }
