"""What the result cache answers in whole runs, and what it costs where it knows nothing."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import Sample, Target, beside
from benchmarks.loads import TINY_LOAD
from benchmarks.stage import Stage
from benchmarks.traffic import FLIGHT, ONCE, in_a_row, in_flight, one_at_a_time
from celerypipe import Runner

HITS_ONCE = Target(500, of="figure")
HITS_RATE = Target(10_000, least=True, of="figure")
#: The node that is told to compute everything.
NODE = "there-0"


def hits(stage: Stage) -> Iterator[Sample]:
    """One warped no-op node with a cache: messages that were computed before, and messages that are computed anew."""
    runner, load = Runner(stage.url), TINY_LOAD
    payload, cached = load.make(), in_a_row("solo", cache=True)
    in_flight(runner, cached, payload, 100)
    ping = stage.yardsticks.ping_pong(stage.count(load.once))
    streams = stage.yardsticks.streams(stage.count(20_000))
    where = f"1 node, {load.name}, known"
    once = one_at_a_time(runner, cached, payload, stage.count(load.once))
    yield beside(Sample(where, ONCE, "µs", once * 1e6), "ping-pong", ping * 1e6, HITS_ONCE)
    rate = in_flight(runner, cached, payload, stage.count(load.flight))
    yield beside(Sample(where, FLIGHT, "/s", rate), "two bare processes", streams, HITS_RATE)
    where = f"1 node, {load.name}, computed and kept"
    anew = Runner(stage.url, refresh=[NODE])
    once = one_at_a_time(anew, cached, payload, stage.count(load.once))
    yield beside(Sample(where, ONCE, "µs", once * 1e6), "ping-pong", ping * 1e6)
    rate = in_flight(anew, cached, payload, stage.count(load.flight))
    yield beside(Sample(where, FLIGHT, "/s", rate), "two bare processes", streams)
