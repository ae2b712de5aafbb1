"""From nothing to the first sign of life, and from the last to nothing: a worker, and a run that brings its own."""

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
        first, rest = _embedded()
        yield Sample("run with Embedded", "from start to first result", "s", first, target=EMBEDDED, group=GROUP)
        yield Sample("run with Embedded", "from its only result to its end", "s", rest, group=GROUP)


def _embedded() -> tuple[float, float]:
    """Seconds until a process has printed the only result of a run on workers of its own, and from then to its end."""
    begin = time.perf_counter()
    process = start(python("benchmarks.starts"), log=os.open(os.devnull, os.O_WRONLY), piped=True)
    try:
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        line = process.stdout.readline()
        spent, begin = time.perf_counter() - begin, time.perf_counter()
        process.wait()
    finally:
        end([process])
    if line != b"here\n":
        raise RuntimeError("a run with Embedded brought nothing")
    return spent, time.perf_counter() - begin


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
