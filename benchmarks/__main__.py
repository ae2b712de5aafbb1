"""``python -m benchmarks``: measure workloads at places, print tables, and with ``--write`` keep them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from contextlib import closing
from types import FrameType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import results
from benchmarks.figures import Figures
from benchmarks.places import PLACES, Place, Server
from benchmarks.stage import Stage
from benchmarks.workloads import WORKLOADS, Workload
from celerypipe.worker.allocator import keep_large_blocks

REPETITIONS = 3
#: Columns of a table that is not printed to a terminal.
WIDTH = 180


class Suite:
    """One call of the suite: what is chosen, what is measured so far, what failed."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.workloads = [WORKLOADS[name] for name in options.workloads or WORKLOADS]
        self.places: tuple[str, ...] = (options.place,) if options.place else PLACES
        self.quick: bool = options.quick
        self.repetitions: int = options.repetitions or (1 if options.quick else REPETITIONS)
        self.figures = Figures()
        self.failures: list[str] = []
        self.not_yet: list[str] = []
        #: Seconds of each workload, all places together.
        self.seconds: Counter[str] = Counter()
        self.redis_version = ""
        self._console = console

    def measure(self) -> None:
        """Everything, place by place."""
        for name in self.places:
            for workload in self.workloads:
                if not workload.anywhere or name == self.places[0]:
                    self._measure(workload, name)

    def _measure(self, workload: Workload, name: str) -> None:
        """One workload at one place, with a Redis and workers of its own: nothing of another's is left in them."""
        repetitions = min(self.repetitions, workload.most)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        quiet = not self._console.is_terminal
        # A thread that draws would run inside the measurements.
        with Progress(*columns, console=self._console, auto_refresh=False, transient=True, disable=quiet) as progress:
            line = progress.add_task("")
            begin = time.monotonic()
            try:
                with (
                    Server() as server,
                    Place(name, server) as place,
                    closing(Stage(place, quick=self.quick)) as stage,
                ):
                    self.redis_version = server.version
                    for queue, count in workload.queues.items():
                        place.workers(queue, count)
                    for number in range(repetitions):
                        progress.update(line, description=f"{name} {workload.name}, {number + 1} of {repetitions}")
                        progress.refresh()
                        for sample in workload.repeat(stage):
                            self.figures.add(workload.group, name if workload.queues else "", sample)
                    self.not_yet += [text for text in dict.fromkeys(stage.not_yet) if text not in self.not_yet]
            except Exception as error:  # noqa: BLE001  # the others still count; the exit status tells
                self.failures.append(f"{name} {workload.name}: {type(error).__name__}: {error}")
                self._console.print(f"failed: {self.failures[-1]}", style="red", markup=False)
            self.seconds[workload.name] += time.monotonic() - begin
            self._console.print(f"{name:5}{workload.name:10}{time.monotonic() - begin:6.1f} s", highlight=False)

    def show(self) -> None:
        """What took how long, and what celerypipe does not have yet."""
        parts = [f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items()]
        total = sum(self.seconds.values())
        self._console.print(f"{', '.join(parts)}; {total:.0f} s in all", highlight=False, soft_wrap=True)
        for text in self.not_yet:
            self._console.print(f"not there yet: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="workload", help=f"any of {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("--place", choices=PLACES, help="how Redis is reached; default: both")
    parser.add_argument("--repetitions", type=int, help=f"default: {REPETITIONS}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages, once: does everything work?")
    parser.add_argument("--write", action="store_true", help="write results/latest.json and RESULTS.md")
    options = parser.parse_args()
    for name in options.workloads:
        if name not in WORKLOADS:
            parser.error(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
    if options.write and (options.workloads or options.quick or options.place):
        parser.error("--write keeps a whole run: all workloads, both places, not a quick one")
    return options


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    keep_large_blocks()  # else the yardsticks of large payloads measure page faults, or not, as it happens
    signal.signal(signal.SIGTERM, _leave)  # so that children and folders go as with Ctrl-C
    console = Console(stderr=True)
    begin, load = time.monotonic(), os.getloadavg()[0]
    suite = Suite(options, console)
    try:
        suite.measure()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    facts = results.head(
        seconds=time.monotonic() - begin,
        repetitions=suite.repetitions,
        redis_version=suite.redis_version,
        load=load,
        each=suite.seconds,
    )
    screen = Console(width=None if sys.stdout.isatty() else WIDTH)
    for table in results.tables(suite.figures):
        screen.print(table)
    suite.show()
    if options.write:
        results.keep(facts, suite.figures, suite.failures, suite.not_yet)
    raise SystemExit(1 if suite.failures else 0)


if __name__ == "__main__":
    main()
