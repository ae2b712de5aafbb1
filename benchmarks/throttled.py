"""``python -m benchmarks.throttled`` (as root): does compression pay on a slow link?

Runner and Redis are at one end of a throttled link, one worker at the other: what goes to the worker and what comes
back crosses the link once each. Prints a table and writes ``results/throttled.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.places import Server, wait_for
from benchmarks.processes import end, python, start
from benchmarks.throttled_link import HERE, Impossible, Link, link
from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.mailbox.blob.packing import pack
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis.connection import connect

KEPT = results.HERE / "results" / "throttled.json"
CONFIGS = results.HERE / "worker_configs"
#: Megabits a second, each way.
RATES: Mapping[str, int | None] = {"100 Mbit/s": 100, "1 Gbit/s": 1000, "unlimited": None}
WAYS = ("none", "lz4", "zstd")
#: Messages on their way: enough to keep both ends busy, few enough that a slow link is soon empty again.
WINDOW = 16
#: The first results are not counted.
SKIP = 4
QUEUE = "flip"

#: Asks Redis for a large value from the far end: what the link really carries.
FETCH = """
import sys, time, redis
client = redis.Redis.from_url(sys.argv[1])
client.get("probe")
start = time.perf_counter()
size = sum(len(client.get("probe")) for _ in range(4))
print(size * 8 / (time.perf_counter() - start) / 1e6)
"""


@dataclass(slots=True)
class Cell:
    """What was measured for one rate, payload and way to pack. ``share``: packed bytes of plain ones."""

    rate: str
    payload: str
    compression: str
    share: float
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Messages a second."""
        return statistics.median(self.rates)

    def to_dict(self, *, best: bool) -> dict[str, Any]:
        """As it is written down."""
        return {
            "rate": self.rate,
            "payload": self.payload,
            "compression": self.compression,
            "packed to": round(self.share, 3),
            "messages/s": round(self.median, 1),
            "low": round(min(self.rates), 1),
            "high": round(max(self.rates), 1),
            "best": best,
        }


def photo() -> Any:
    """A 640x480 frame in colour that looks like a photograph."""
    try:
        from skimage.data import astronaut
    except ImportError:
        rows, columns = np.mgrid[0:480, 0:640]
        smooth = 120 + 60 * np.sin(rows / 90) + 50 * np.cos(columns / 70)
        noise = np.random.default_rng(0).normal(0, 2, (480, 640, 3))
        return np.clip(smooth[..., None] + noise, 0, 255).astype(np.uint8)
    picture = astronaut()  # 512x512: mirrored to the width, cut to the height
    return np.ascontiguousarray(np.hstack([picture, picture[:, ::-1]])[16:496, :640])


def sparse() -> Any:
    """A million bytes of float32, 2 % of them not zero."""
    random = np.random.default_rng(0)
    array = np.zeros(250_000, np.float32)
    places = random.choice(array.size, array.size // 50, replace=False)
    array[places] = random.normal(size=places.size)
    return array


def pipeline(compression: str) -> Pipeline:
    """One warped node that sends back a copy of what it gets, so that the bytes cross the link twice."""
    limits = {"queue": QUEUE, "window": WINDOW, "compression": compression}
    mark = "benchmarks.nodes.Copy"
    node = NodeDefinition(name="there", type="proc", mark=mark, warped=True, warp_configuration=limits)
    return Pipeline(name="throttled", nodes=[node], links=[], deadline=120.0)


def measured(url: str, payload: Any, compression: str, seconds: float) -> float:
    """Messages a second with a full window."""
    begin = time.perf_counter()

    def messages() -> Iterator[Message]:
        while time.perf_counter() - begin < seconds:
            yield Message(payload)

    times: list[float] = []
    last = None
    for message in Runner(url, shared_memory=False).stream(pipeline(compression), messages()):
        times.append(time.perf_counter())
        last = message
    if last is None or not np.array_equal(last.payload, payload):
        raise RuntimeError("the last message did not come back as it should")
    return (len(times) - SKIP - 1) / (times[-1] - times[SKIP])


class Bench:
    """The servers at both ends, and what was measured so far."""

    def __init__(self, road: Link, server: Server, *, seconds: float, repetitions: int) -> None:
        self.road = road
        self.server = server
        self.seconds = seconds
        self.repetitions = repetitions
        self.cells: list[Cell] = []
        #: What the link carries, in megabits a second, by the name of its rate.
        self.carries: dict[str, float] = {}
        self._worker: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Redis, from either end."""
        return self.server.url("tcp")

    def begin(self) -> None:
        """Start the worker at the far end."""
        command = self.road.over_there(python("celery", "-A", "celerypipe", "worker", "-Q", QUEUE))
        environment = {
            "CELERYPIPE_REDIS_URL": self.url,
            "CELERYPIPE_WORKER_CONFIGS": str(CONFIGS),
            "CELERYPIPE_SHARED_MEMORY": "no",
        }
        path = self.server.folder / "worker.log"
        with path.open("wb") as log:
            self._worker = start(command, log=log, environment=environment)
        with connect(self.url) as client:
            wait_for(lambda: read_presences(client), "the worker", self._worker, path)
            client.set("probe", bytes(4_000_000))

    def close(self) -> None:
        """End the worker."""
        end([self._worker] if self._worker is not None else [])

    def measure(self, name: str, console: Console) -> None:
        """One rate: all payloads, all ways; the ways take turns, so that what disturbs one disturbs all."""
        self.road.throttle(RATES[name])
        command = self.road.over_there([sys.executable, "-c", FETCH, self.url])
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        self.carries[name] = float(done.stdout)
        for payload_name, payload in (("frame", photo()), ("sparse", sparse())):
            share = {way: len(pack(way, [payload.tobytes()])[1]) / payload.nbytes for way in WAYS}
            cells = [Cell(name, payload_name, way, share[way]) for way in WAYS]
            for _ in range(self.repetitions):
                for cell in cells:
                    cell.rates.append(measured(self.url, payload, cell.compression, self.seconds))
            self.cells += cells
            shown = ", ".join(f"{cell.compression} {cell.median:.0f}/s" for cell in cells)
            console.print(f"{name}, {payload_name}: {shown}", highlight=False)

    def figures(self) -> list[dict[str, Any]]:
        """Everything; the best way of each rate and payload is marked."""
        groups: dict[tuple[str, str], float] = {}
        for cell in self.cells:
            place = (cell.rate, cell.payload)
            groups[place] = max(groups.get(place, 0.0), cell.median)
        return [cell.to_dict(best=cell.median == groups[cell.rate, cell.payload]) for cell in self.cells]


def table(figures: Sequence[Mapping[str, Any]], carries: Mapping[str, float]) -> Table:
    """For a terminal; a star marks the best."""
    shown = Table(title="Messages/s through a throttled link, one node, one worker", title_justify="left")
    for column in ("link", "measured", "payload", "compression", "packed to", "messages/s", "lowest to highest"):
        shown.add_column(column)
    for one in figures:
        shown.add_row(
            one["rate"],
            f"{carries[one['rate']]:.0f} Mbit/s",
            one["payload"],
            one["compression"],
            f"{one['packed to']:.0%}",
            f"{one['messages/s']:.1f}{' *' if one['best'] else ''}",
            f"{one['low']:.1f} to {one['high']:.1f}",
        )
    return shown


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throttled", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement; default: 5")
    parser.add_argument("--repetitions", type=int, default=3, help="default: 3")
    parser.add_argument("--quick", action="store_true", help="a second, once, nothing written: does everything work?")
    return parser.parse_args()


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    signal.signal(signal.SIGTERM, _leave)  # so that namespaces and children go as with Ctrl-C
    seconds, repetitions = (1.0, 1) if options.quick else (options.seconds, options.repetitions)
    begin, load = time.monotonic(), os.getloadavg()[0]
    console = Console(stderr=True)
    try:
        with link() as road, Server(HERE) as server:
            bench = Bench(road, server, seconds=seconds, repetitions=repetitions)
            try:
                bench.begin()
                for name in RATES:
                    bench.measure(name, console)
            finally:
                bench.close()
    except Impossible as reason:
        console.print(f"cannot measure here: {reason}", markup=False, highlight=False)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    figures = bench.figures()
    Console(width=None if sys.stdout.isatty() else 120).print(table(figures, bench.carries))
    if options.quick:
        return
    spent = time.monotonic() - begin
    facts = results.head(seconds=spent, repetitions=repetitions, redis_version=server.version, load=load, each={})
    facts["command"] = " ".join(["python", "-m", "benchmarks.throttled", *sys.argv[1:]])
    facts["link carries, Mbit/s"] = {name: round(value) for name, value in bench.carries.items()}
    Path(KEPT).write_text(json.dumps({"head": facts, "figures": figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
