"""Functions: how long a call takes, how many a second, and what a graph of them adds to its work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Sample, Target, beside
from benchmarks.functions import WORK, busy, same
from benchmarks.stage import Stage
from benchmarks.traffic import FLIGHT, ONCE
from benchmarks.yardsticks import TINY
from celerypipe import Runner

GRAPH = 1000
OVERHEAD = Target(1.2)


def calls(stage: Stage) -> Iterator[Sample]:
    """No-op calls one at a time and in flight, then a thousand calls of 5 ms in diamonds, on one process."""
    with Runner(stage.url) as runner:
        runner.submit(busy).result(60)
        ping = stage.yardsticks.ping_pong(stage.count(1000))
        where = "1 function, 100 B, prefork"
        yield beside(Sample(where, ONCE, "µs", _once(runner, stage.count(1000)) * 1e6), "ping-pong", ping * 1e6)
        count = stage.count(10_000)
        began = time.perf_counter()
        if sum(1 for out in runner.map(same, [TINY] * count) if out == TINY) != count:
            raise RuntimeError("not what was sent")
        rate = count / (time.perf_counter() - began)
        yield beside(Sample(where, FLIGHT, "/s", rate), "two bare processes", stage.yardsticks.streams(20_000))
        count = stage.count(GRAPH, 100)
        for name, graph in (("one wide diamond", _wide), ("diamonds in a row", _row)):
            began = time.perf_counter()
            graph(runner, count).result(600)
            took, work = time.perf_counter() - began, count * WORK
            sample = Sample(f"{count:,} calls of {WORK * 1e3:.0f} ms, {name}", "time", "s", took)
            yield beside(sample, "its work alone", work, OVERHEAD)


def _once(runner: Runner, count: int) -> float:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        runner.submit(same, TINY).result(60)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _wide(runner: Runner, count: int) -> Any:
    """One call, all others that need it, and one that needs all of those."""
    top = runner.submit(busy)
    return runner.submit(busy, [runner.submit(busy, top) for _ in range(count - 2)])


def _row(runner: Runner, count: int) -> Any:
    """Diamonds of four calls, each after the one before it."""
    last = runner.submit(busy)
    for _ in range(count // 4):
        sides = runner.submit(busy, last), runner.submit(busy, last)
        last = runner.submit(busy, *sides, runner.submit(busy, last))
    return last
