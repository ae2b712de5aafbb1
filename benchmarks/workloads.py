"""The workloads: each is a function that does one repetition, yardsticks and pipelines one after the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from benchmarks import bulk
from benchmarks.batches import batches
from benchmarks.calls import calls
from benchmarks.crowds import fairness, memory
from benchmarks.figures import Sample, Target, beside, yardstick
from benchmarks.hits import hits
from benchmarks.loads import TINY_LOAD
from benchmarks.stage import Stage
from benchmarks.traffic import FLIGHT, ONCE, in_a_row, in_flight, one_at_a_time
from celerypipe import Runner

PING, STREAMS, PLAIN = "ping-pong", "two bare processes", "plain Celery"
TINY_ONCE = {"solo": Target(3, 2), "prefork": Target(5, 3)}
TINY_RATE = Target(15_000, 25_000, least=True, of="figure")
TINY_OVER_PLAIN = Target(30, least=True)
THREE_ONCE = Target(8, 5)
THREE_RATE = Target(4_790, least=True, of="figure")
WAKE = Target(1)
TWO_OVER_ONE = Target(1.8, least=True)
#: Milliseconds that a node works, see :mod:`benchmarks.nodes`.
WORK_MS = 5
#: A message after this pause finds that its activation let go: a short linger makes the pause short.
WAKE_LINGER, WAKE_PAUSE = 0.05, 0.25
MANY = 64
#: A window wider than the usual 64.
WIDE = 1024


@dataclass(frozen=True)
class Workload:
    """One workload. ``queues`` are the workers that it needs, ``most`` the repetitions that suffice.

    ``anywhere``: the place makes little difference, so that it is measured at the first one only.
    """

    name: str
    group: str
    repeat: Callable[[Stage], Iterator[Sample]]
    queues: Mapping[str, int] = field(default_factory=dict)
    most: int = 99
    anywhere: bool = False


def tiny(stage: Stage) -> Iterator[Sample]:
    """One no-op node and 100 B: a message's way there and back, and how many of them a second."""
    runner, load, yardsticks = Runner(stage.url), TINY_LOAD, stage.yardsticks
    payload = load.make()
    for pool in ("solo", "prefork"):
        where = f"1 node, {load.name}, {pool}"
        pipeline = in_a_row(pool)
        ping = yardsticks.ping_pong(stage.count(load.once))
        once = one_at_a_time(runner, pipeline, payload, stage.count(load.once))
        yield beside(Sample(where, ONCE, "µs", once * 1e6), PING, ping * 1e6, TINY_ONCE[pool])
        streams = yardsticks.streams(stage.count(20_000))
        rate = in_flight(runner, pipeline, payload, stage.count(load.flight))
        plain = yardsticks.plain_flight(stage.count(600, 200))
        yield beside(Sample(where, FLIGHT, "/s", rate), STREAMS, streams, TINY_RATE)
        yield beside(Sample(where, FLIGHT, "/s", rate), PLAIN, plain, TINY_OVER_PLAIN)
        wide = in_flight(runner, in_a_row(pool, warp={"window": WIDE}), payload, stage.count(2 * load.flight), WIDE)
        yield beside(Sample(f"{where}, window {WIDE:,}", FLIGHT, "/s", wide), PLAIN, plain, TINY_OVER_PLAIN)
        yield yardstick(PING, "µs", ping * 1e6)
        yield yardstick(STREAMS, "/s", streams)
        yield yardstick(f"{PLAIN}, 200 in flight", "/s", plain)


def three(stage: Stage) -> Iterator[Sample]:
    """Three no-op nodes in a row: served in turn by one slot, and on a worker with a slot for each."""
    runner, load = Runner(stage.url), TINY_LOAD
    for queue, slots in bulk.THREE.items():
        payload, pipeline = load.make(), in_a_row(queue, 3)
        where = f"3 nodes, {load.name}, {slots}"
        ping = stage.yardsticks.ping_pong(stage.count(load.once))
        once = one_at_a_time(runner, pipeline, payload, stage.count(load.once // 3))
        yield beside(Sample(where, ONCE, "µs", once * 1e6), PING, ping * 1e6, THREE_ONCE)
        streams = stage.yardsticks.streams(stage.count(20_000))
        rate = in_flight(runner, pipeline, payload, stage.count(load.flight // 3))
        yield beside(Sample(where, FLIGHT, "/s", rate), STREAMS, streams, THREE_RATE)


def work(stage: Stage) -> Iterator[Sample]:
    """A node that takes 5 ms a message, on one worker and on two; the first is the yardstick of the second."""
    runner = Runner(stage.url)
    for mark, what in (("Work", "keeps a core busy"), ("Wait", "sleeps")):
        where = f"1 node that {what} for {WORK_MS} ms a message"
        rates = []
        for queue in ("one", "two"):
            pipeline = in_a_row(queue, mark=f"benchmarks.nodes.{mark}", seconds=WORK_MS / 1000)
            # A second worker is rung for when the node is seen to be slow: the first messages tell.
            rates.append(in_flight(runner, pipeline, TINY_LOAD.make(), stage.count(400, 250), stage.count(120, 100)))
        yield Sample(where, "1 worker", "/s", rates[0])
        yield beside(Sample(where, "2 workers", "/s", rates[1]), "1 worker", rates[0], TWO_OVER_ONE)


def idle(stage: Stage) -> Iterator[Sample]:
    """A message after a pause longer than ``linger``: a new Celery task is rung for it."""
    count, yardsticks = stage.count(8, 4), stage.yardsticks
    where = "1 node, 100 B, after a pause"
    plain = yardsticks.plain_once(stage.count(100, 20))
    paused = yardsticks.plain_once(count, WAKE_PAUSE)
    before = stage.bells("prefork")
    pipeline = in_a_row("prefork", warp={"linger": WAKE_LINGER})
    once = one_at_a_time(Runner(stage.url), pipeline, TINY_LOAD.make(), count, WAKE_PAUSE)
    rung = stage.bells("prefork") - before
    if rung < count:
        raise RuntimeError(f"{rung} Celery tasks for {count} messages: the pause was too short to measure a wake-up")
    sample = Sample(where, "p50", "ms", once * 1e3)
    yield beside(sample, f"{PLAIN} delay().get(), no pause", plain * 1e3, WAKE)
    yield beside(sample, f"{PLAIN} delay().get(), same pause", paused * 1e3, WAKE)
    yield yardstick(f"{PLAIN} delay().get()", "ms", plain * 1e3)
    yield yardstick(f"{PLAIN} delay().get(), same pause", "ms", paused * 1e3)


def many(stage: Stage) -> Iterator[Sample]:
    """Sixty-four warped nodes in one pipeline, on one slot: activations take turns."""
    runner, pipeline, payload = Runner(stage.url), in_a_row("prefork", MANY), TINY_LOAD.make()
    where = f"{MANY} nodes in a row, 100 B, one slot"
    ping = stage.yardsticks.ping_pong(stage.count(TINY_LOAD.once))
    once = one_at_a_time(runner, pipeline, payload, 1)
    yield beside(Sample(where, "one message, time per node", "ms", once / MANY * 1e3), PING, ping * 1e3)
    streams = stage.yardsticks.streams(stage.count(20_000))
    rate = in_flight(runner, pipeline, payload, MANY, skip=0)
    yield beside(Sample(where, f"{MANY} messages, nodes passed", "/s", rate * MANY), STREAMS, streams)


def importing(stage: Stage) -> Iterator[Sample]:
    """What ``import celerypipe`` adds to a bare interpreter."""
    code = "import time; a = time.perf_counter(); import celerypipe; print(time.perf_counter() - a)"
    spent = min(
        float(subprocess.check_output([sys.executable, "-c", code], text=True))  # noqa: S603  # our own text above
        for _ in range(stage.count(5, 1))
    )
    yield Sample("import celerypipe", "time", "ms", spent * 1e3)


PREFORK = {"prefork": 1}
THREE = dict.fromkeys(bulk.THREE, 1)
#: All of them, in the order of RESULTS.md.
WORKLOADS = {
    one.name: one
    for one in (
        Workload("tiny", "One warped no-op node, tiny messages", tiny, {"solo": 1, **PREFORK}),
        Workload("large", "One warped node, large payloads", bulk.one_node, PREFORK, most=2),
        Workload("three", "Three warped no-op nodes in a row, tiny messages", three, THREE),
        Workload("bulk", "Three warped nodes in a row, large payloads", bulk.three_nodes, THREE, most=2, anywhere=True),
        Workload("batch", "Micro-batches", batches, {"one": 1}, anywhere=True),
        Workload("calls", "Functions, call by call", calls, {"calls": 1}, most=2, anywhere=True),
        Workload("cache", "One warped no-op node with a result cache", hits, {"solo": 1}),
        Workload("work", "Two workers instead of one", work, {"one": 1, "two": 2}, most=2, anywhere=True),
        Workload("fairness", "Eight pipelines sharing one worker", fairness, PREFORK, most=2, anywhere=True),
        Workload("idle", "Idle wake-up", idle, PREFORK),
        Workload("many", "Sixty-four warped nodes in one pipeline", many, PREFORK, most=1),
        Workload("memory", "Memory over 200,000 messages", memory, PREFORK, most=1, anywhere=True),
        Workload("import", "Import", importing, anywhere=True),
    )
}
