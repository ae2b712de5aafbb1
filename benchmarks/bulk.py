"""Large payloads: through shared memory or through Redis, passed on as they are or made anew by every node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.figures import Sample, Target, beside, yardstick
from benchmarks.loads import ARRAY_LOAD, FRAME_LOAD, LARGE, Load, raw
from benchmarks.places import PLACES
from benchmarks.stage import Stage
from benchmarks.traffic import FLIGHT, IDENTITY, ONCE, in_a_row, one_at_a_time, steady
from celerypipe import Runner

STORE = "SET+GET twice"
FRAME_ONCE = Target(1.6)
#: So many times the messages, where they take so little time that fewer would tell nothing.
FASTER = 3


@dataclass(frozen=True)
class Way:
    """One way for bytes. ``mark``: the node that they pass, ``shared``: in this machine's memory, not in Redis."""

    name: str
    shared: bool
    mark: str = IDENTITY


COPY = "benchmarks.nodes.Copy"
#: Bytes are copied out of what came; every node makes them anew.
BYTES_WAYS = (Way("shared memory", shared=True), Way("Redis", shared=False))
SHARED = Way("shared memory, passed on", shared=True)
SHARED_NEW = Way("shared memory, made anew", shared=True, mark=COPY)
REDIS = Way("Redis, passed on", shared=False)
REDIS_NEW = Way("Redis, made anew", shared=False, mark=COPY)
#: Queues that serve three nodes, and what with.
THREE = {"solo": "one slot", "three": "three slots"}


def one_node(stage: Stage) -> Iterator[Sample]:
    """One node and payloads from 64 KiB to 16 MiB."""
    for load in LARGE:
        ways = (SHARED, SHARED_NEW, *((REDIS,) if load is FRAME_LOAD else ()), REDIS_NEW)
        yield from _measure(stage, "prefork", 1, load, ways if load.is_array else BYTES_WAYS)


def three_nodes(stage: Stage) -> Iterator[Sample]:
    """Three nodes in a row: served in turn by one slot, and on a worker with a slot for each."""
    for queue, slots in THREE.items():
        yield from _measure(stage, queue, 3, FRAME_LOAD, (SHARED, SHARED_NEW, REDIS_NEW), f", {slots}")
        yield from _measure(stage, queue, 3, ARRAY_LOAD, (SHARED, SHARED_NEW), f", {slots}")


def _measure(
    stage: Stage, queue: str, nodes: int, load: Load, ways: Iterable[Way], after: str = ""
) -> Iterator[Sample]:
    """A payload beside SET+GET twice of the same bytes, which is one node's way through Redis if it makes them anew."""
    # Elsewhere than on Linux it would go through Redis, under a wrong name; where Redis is makes no difference.
    shares = stage.place.name == PLACES[0] and stage.place.shares_memory()
    payload = load.make()
    twice = 2 * stage.yardsticks.store_and_fetch(raw(payload), stage.count(load.stored, 4))
    yield yardstick(STORE, "ms", twice * 1e3, load.name)
    for way in ways:
        if way.shared and not shares:
            continue
        where = f"{nodes} {'node' if nodes == 1 else 'nodes'}, {load.name}, {way.name}{after}"
        runner = Runner(stage.url, shared_memory=way.shared)
        pipeline = in_a_row(queue, nodes, mark=way.mark)
        once = one_at_a_time(runner, pipeline, payload, stage.count(load.once // nodes, 4))
        target = FRAME_ONCE if (nodes, load, way) == (1, FRAME_LOAD, REDIS_NEW) else None
        yield beside(Sample(where, ONCE, "ms", once * 1e3), STORE, twice * 1e3, target)
        flight = load.flight // nodes * (FASTER if way.shared else 1)
        rate = steady(runner, pipeline, payload, stage.count(flight, 8), load.window)
        yield beside(Sample(where, FLIGHT, "/s", rate), STORE, 1 / twice)
