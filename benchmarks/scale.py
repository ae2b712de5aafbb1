"""``python -m benchmarks.scale``: what it costs in workers, nodes and runs.

Messages while thousands of workers of other queues live in the same Redis; a run and its workers far from Redis; what
is asked of Redis while nothing happens; starts. Prints tables, and a whole run writes ``results/scale.json`` and
``RESULTS.md``. Counts and bytes are exact, also on a busy machine; times are not. Linux only.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from rich.console import Console

from benchmarks import results
from benchmarks.bystanders import COUNTS, bystanders
from benchmarks.distance import distance
from benchmarks.figures import Figures, Sample
from benchmarks.idleness import idleness
from benchmarks.places import Server
from benchmarks.starts import starts

#: Columns of a table that is not printed to a terminal.
WIDTH = 160


def parts(*, quick: bool, repetitions: int) -> Mapping[str, Callable[[], Iterator[Sample]]]:
    """What can be measured, by name."""
    if quick:
        return {
            "bystanders": lambda: bystanders(messages=20, seconds=0.5, repetitions=1, counts=(0, 100)),
            "distance": lambda: distance(seconds=2.0, quick=True),
            "idle": lambda: idleness(seconds=2.0, quick=True),
            "starts": lambda: starts(repetitions=1),
        }
    return {
        "bystanders": lambda: bystanders(messages=1_000, seconds=10.0, repetitions=repetitions, counts=COUNTS),
        "distance": lambda: distance(seconds=10.0, quick=False),
        "idle": lambda: idleness(seconds=10.0, quick=False),
        "starts": lambda: starts(repetitions=repetitions),
    }


def arguments() -> argparse.Namespace:
    """What the command line says."""
    names = tuple(parts(quick=True, repetitions=1))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of {', '.join(names)}; default: all")
    parser.add_argument("--repetitions", type=int, default=5, help="of what is a time; default: 5")
    parser.add_argument("--quick", action="store_true", help="a part of it, nothing written: does everything work?")
    options = parser.parse_args()
    for name in options.parts:
        if name not in names:
            parser.error(f"no part {name!r}; there are {', '.join(names)}")
    return options


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    signal.signal(signal.SIGTERM, _leave)  # so that children and folders go as with Ctrl-C
    begin, load = time.monotonic(), os.getloadavg()[0]
    console, figures = Console(stderr=True), Figures()
    try:
        with Server() as server:
            version = server.version
        every = parts(quick=options.quick, repetitions=options.repetitions)
        for name in options.parts or every:
            since = time.monotonic()
            for sample in every[name]():
                figures.add(sample.group, "", sample)
            console.print(f"{name:12}{time.monotonic() - since:6.1f} s", highlight=False)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    screen = Console(width=None if sys.stdout.isatty() else WIDTH)
    for table in results.tables(figures):
        screen.print(table)
    if options.quick or options.parts:
        return
    facts = results.head(
        seconds=time.monotonic() - begin, repetitions=options.repetitions, redis_version=version, load=load, each={}
    )
    facts["command"] = " ".join(["python", "-m", "benchmarks.scale", *sys.argv[1:]])
    results.keep_scale(facts, figures)


if __name__ == "__main__":
    main()
