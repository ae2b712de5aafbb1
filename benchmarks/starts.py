"""From nothing to the first sign of life: a worker's CPU and seconds until runners see it, and a run's first result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from benchmarks.crew import Crew
from benchmarks.figures import Sample, Target
from benchmarks.places import Server
from benchmarks.processes import end, python, start, tree

GROUP = "Starts"
POOLS = ("solo", "prefork")
#: Linux counts CPU in so many pieces a second.
TICKS = os.sysconf("SC_CLK_TCK")
EMBEDDED = Target(1.5, of="figure")


def starts(*, repetitions: int) -> Iterator[Sample]:
    """Start workers one after the other, and processes that bring their own."""
    for _ in range(repetitions):
        for pool in POOLS:
            with Server() as server, closing(Crew(server.url("unix"), server.folder, "starts")) as crew:
                begin = time.perf_counter()
                (worker,) = crew.workers(pool)
                seconds, pids = time.perf_counter() - begin, tree(worker.pid)
                yield Sample(f"worker, {pool}", "seconds until it is seen", "s", seconds, group=GROUP)
                yield Sample(f"worker, {pool}", "CPU until it is seen", "s", sum(map(_cpu, pids)), group=GROUP)
        yield Sample("run with Embedded", "from start to first result", "s", _embedded(), target=EMBEDDED, group=GROUP)


def _embedded() -> float:
    """Seconds from the start of a process until it has printed the first result of a run on workers of its own."""
    begin = time.perf_counter()
    process = start(python("benchmarks.starts"), log=os.open(os.devnull, os.O_WRONLY), piped=True)
    try:
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        line = process.stdout.readline()
        spent = time.perf_counter() - begin
    finally:
        end([process])
    if line != b"here\n":
        raise RuntimeError("a run with Embedded brought nothing")
    return spent


def _cpu(pid: int) -> float:
    """Seconds of CPU of a process, and of those that it has waited for."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS
    return 0.0


def _bring() -> None:
    """Print a line for the first result."""
    from benchmarks.traffic import in_a_row
    from celerypipe import Embedded, Message, Runner

    pipeline = in_a_row("first")
    with Embedded(pipeline) as url:
        for _ in Runner(url).stream(pipeline, [Message(0)]):
            print("here", flush=True)


if __name__ == "__main__":
    _bring()
