"""The workloads that need runners in processes of their own: fairness between pipelines, memory over a long run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Sample, Target
from benchmarks.processes import end, python, resident, start, tree
from benchmarks.stage import Stage
from celerypipe.redis.connection import connect

PIPELINES = 8
#: Seconds: a worker that stays 0.2 s with each of eight pipelines comes round six times.
FAIR_SECONDS = 10.0
FAIR = Target(0.8, least=True, of="figure")
MESSAGES, EVERY = 200_000, 10_000
#: Memory is flat when it grows by no more after the first 10,000 messages: a part of it, or bytes.
GROWTH, GROWTH_BYTES = 0.05, 2_000_000
MB = 1_000_000


def fairness(stage: Stage) -> Iterator[Sample]:
    """Eight runners flood one worker for a while; how much less than the best does the worst get?"""
    seconds = FAIR_SECONDS / 4 if stage.quick else FAIR_SECONDS
    runners = [_runner(stage, 10**9, 10**9, seconds) for _ in range(PIPELINES)]
    try:
        for runner in runners:
            _read(runner)
        for runner in runners:
            _go(runner)
        rates = sorted(int(_read(runner)) / seconds for runner in runners)
    finally:
        end(runners)
    where = f"{PIPELINES} pipelines, 100 B, in flight for {seconds:g} s"
    yield Sample(where, "slowest over fastest", "", rates[0] / rates[-1], target=FAIR)
    yield Sample(where, "slowest pipeline", "/s", rates[0])
    yield Sample(where, "fastest pipeline", "/s", rates[-1])
    yield Sample(where, "all together", "/s", sum(rates))


def memory(stage: Stage) -> Iterator[Sample]:
    """What runner, worker and Redis hold after 10,000 messages, and how much more at any time later."""
    count = MESSAGES // 10 if stage.quick else MESSAGES
    every = EVERY // 10 if stage.quick else EVERY
    worker = stage.place.workers("prefork")[0]
    server = stage.place.server.process
    held: dict[str, list[float]] = {"runner": [], "worker": [], "Redis": [], "Redis used_memory": []}
    runner = _runner(stage, count, every, 0)
    with connect(stage.url) as client:
        try:
            _read(runner)
            _go(runner)
            while int(_read(runner)) < count:  # the last sample may meet a runner that has ended
                info: Any = client.info("memory")
                held["runner"].append(resident([runner.pid]))
                held["worker"].append(resident(tree(worker.pid)))
                held["Redis"].append(resident([server.pid]))
                held["Redis used_memory"].append(float(info["used_memory"]))
        finally:
            end([runner])
    for what, sizes in held.items():
        allowed = max(GROWTH * sizes[0], GROWTH_BYTES)
        growth = max(sizes) - sizes[0]
        yield Sample(what, f"after {every:,} messages", "MB", sizes[0] / MB)
        yield Sample(what, f"most growth until {count:,}", "MB", growth / MB, target=Target(allowed / MB, of="figure"))


def _runner(stage: Stage, count: int, every: int, seconds: float) -> subprocess.Popen[bytes]:
    words = python("benchmarks.apart", stage.url, "prefork", str(count), str(every), str(seconds))
    with stage.place.log("apart").open("ab") as log:
        return start(words, log=log.fileno(), piped=True)


def _go(runner: subprocess.Popen[bytes]) -> None:
    assert runner.stdin is not None  # noqa: S101  # it is a pipe
    runner.stdin.write(b"go\n")
    runner.stdin.flush()


def _read(runner: subprocess.Popen[bytes]) -> bytes:
    assert runner.stdout is not None  # noqa: S101  # it is a pipe
    line = runner.stdout.readline()
    if not line:
        raise RuntimeError("a runner in a process of its own ended early; its log is apart.log")
    return line
