"""What one run more, and one worker more, costs Redis: to be multiplied."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from benchmarks.bystanders import QUEUE, peopled
from benchmarks.figures import Sample
from benchmarks.open_runs import open_run, side_by_side
from benchmarks.places import Server
from benchmarks.witness import Witness

GROUP = "One more"
#: So many runs at a time, of so many nodes.
RUNS, NODES = 4, 4
#: So many workers of the queue of a run.
COLLEAGUES = (0, 1_000)
#: Seconds of a message that is out as long as it is counted, and of one that is back at once.
LONG, QUICK = 60.0, 0.0


@dataclass(frozen=True)
class Burden:
    """What Redis has to do in a second."""

    commands: float
    received: float
    sent: float
    cpu: float
    connections: float

    def each(self, count: int, without: Burden | None = None) -> Burden:
        """What one of so many adds to what there is without them."""
        rest = without or Burden(0, 0, 0, 0, 0)
        return Burden(
            (self.commands - rest.commands) / count,
            (self.received - rest.received) / count,
            (self.sent - rest.sent) / count,
            (self.cpu - rest.cpu) / count,
            (self.connections - rest.connections) / count,
        )

    def samples(self, who: str) -> Iterator[Sample]:
        """As figures."""
        yield Sample(who, "commands", "/s", self.commands, group=GROUP)
        yield Sample(who, "Redis receives", "B/s", self.received, group=GROUP)
        yield Sample(who, "Redis sends", "B/s", self.sent, group=GROUP)
        yield Sample(who, "Redis computes", "ms/s", self.cpu * 1000, group=GROUP)
        yield Sample(who, "connections", "", self.connections, group=GROUP)


def many_runs(*, seconds: float, quick: bool) -> Iterator[Sample]:
    """The same runs with few and with many workers of their queue, of which all but one are known to Redis alone."""
    for count in COLLEAGUES[:1] if quick else COLLEAGUES:
        with ExitStack() as stack:
            place = peopled(stack, count, QUEUE)
            witness = stack.enter_context(closing(Witness(place.url)))
            alone = _burden(witness, seconds)
            if count == 0:
                yield from alone.each(1, _nothing(seconds)).samples("a worker")
            for what, takes in (("waits for its source", QUICK), ("has a message out at each", LONG)):
                with ExitStack() as runs:
                    for _ in range(RUNS):
                        runs.enter_context(open_run(place.url, side_by_side(QUEUE, [takes] * NODES)))
                    together = _burden(witness, seconds)
                who = f"a run of {NODES} nodes that {what}, {count + 1:,} worker{'s' if count else ''} of its queue"
                yield from together.each(RUNS, alone).samples(who)


def _nothing(seconds: float) -> Burden:
    """What a server does that nobody asks anything."""
    with Server() as server, closing(Witness(server.url("tcp"))) as witness:
        return _burden(witness, seconds)


def _burden(witness: Witness, seconds: float) -> Burden:
    time.sleep(max(1.0, seconds / 2))  # until all has begun
    traffic = witness.traffic(seconds)
    connections = witness.everybody()
    commands = sum(witness.commands(seconds).values()) / seconds
    return Burden(commands, traffic.received, traffic.sent, traffic.cpu, connections)
