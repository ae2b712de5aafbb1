"""One warped no-op node, whole runner included, beside raw redis-py ping-pong in the same run.

``python benchmarks/spine.py`` prints the figures and writes ``benchmarks/RESULTS.md``. Ratios count, not microseconds:
each repetition measures the yardstick and the pipeline one after the other, and the median of the ratios is shown.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import platform
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from celerypipe import Embedded, Message, Pipeline, Runner
from celerypipe.connection import connect
from celerypipe.pipeline import NodeDefinition

HERE = Path(__file__).parent
PAYLOAD = b"x" * 100

PONG = """
import sys
from celerypipe.connection import connect
client = connect(sys.argv[1])
while True:
    item = client.blpop("bench:ping", 1)
    if item and item[1] == b"end":
        break
    if item:
        client.rpush("bench:pong", item[1])
"""


def pipeline(queue_name: str) -> Pipeline:
    """One node that sends on what it receives."""
    node = NodeDefinition(
        name="there",
        type="proc",
        mark="passthrough_identity",
        warped=True,
        warp_configuration={"queue": queue_name, "linger": 5.0},
    )
    return Pipeline(name="bench", nodes=[node], links=[])


def ping_pong(url: str, count: int) -> list[float]:
    """Seconds for one message over two lists to another bare process and back."""
    peer = subprocess.Popen([sys.executable, "-c", PONG, url])  # noqa: S603  # our own text above
    client = connect(url)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        client.rpush("bench:ping", PAYLOAD)
        client.blpop("bench:pong", 5)
        times.append(time.perf_counter() - start)
    client.rpush("bench:ping", b"end")
    peer.wait()
    client.close()
    return times[count // 10 :]


def one_at_a_time(url: str, queue_name: str, count: int) -> list[float]:
    """Seconds for one message through the pipeline, the next one sent when it is back."""
    turn: queue.SimpleQueue[bool] = queue.SimpleQueue()
    sent: list[float] = []

    def messages() -> Iterator[Message]:
        for _ in range(count):
            turn.get()
            sent.append(time.perf_counter())
            yield Message(PAYLOAD)

    times = []
    turn.put(True)
    for _ in Runner(url).stream(pipeline(queue_name), messages()):
        times.append(time.perf_counter() - sent[-1])
        turn.put(True)
    return times[count // 10 :]


def in_flight(url: str, queue_name: str, count: int) -> float:
    """Messages a second when the window is always full."""
    stream = Runner(url).stream(pipeline(queue_name), (Message(PAYLOAD) for _ in range(count)))
    next(stream)
    start = time.perf_counter()
    got = sum(1 for _ in stream)
    return got / (time.perf_counter() - start)


def measure(url: str, queue_name: str, *, repetitions: int, count: int, flood: int) -> dict[str, list[float]]:
    """Interleaved repetitions of yardstick and pipeline."""
    figures: dict[str, list[float]] = {"ping-pong µs": [], "one at a time µs": [], "ratio": [], "in flight /s": []}
    one_at_a_time(url, queue_name, 200)
    for _ in range(repetitions):
        ping = statistics.median(ping_pong(url, count))
        once = statistics.median(one_at_a_time(url, queue_name, count))
        figures["ping-pong µs"].append(ping * 1e6)
        figures["one at a time µs"].append(once * 1e6)
        figures["ratio"].append(once / ping)
        figures["in flight /s"].append(in_flight(url, queue_name, flood))
    return figures


def import_time() -> float:
    """Milliseconds that ``import celerypipe`` adds to a bare interpreter; median of 9."""
    code = "import time; a = time.perf_counter(); import celerypipe; print(time.perf_counter() - a)"
    runs = [
        float(subprocess.check_output([sys.executable, "-c", code], text=True))  # noqa: S603  # our own text above
        for _ in range(9)
    ]
    return statistics.median(runs) * 1000


def table(rows: dict[str, dict[str, list[float]]]) -> list[str]:
    """Median, and the spread from lowest to highest."""
    lines = ["| workload | figure | median | lowest to highest |", "|---|---|---|---|"]
    for workload, figures in rows.items():
        for name, values in figures.items():
            digits = 0 if max(values) > 100 else 2
            lines.append(
                f"| {workload} | {name} | {statistics.median(values):.{digits}f} "
                f"| {min(values):.{digits}f} to {max(values):.{digits}f} |"
            )
    return lines


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--count", type=int, default=2000, help="messages one at a time")
    parser.add_argument("--flood", type=int, default=20000, help="messages in flight")
    parser.add_argument("--write", action="store_true", help="write benchmarks/RESULTS.md")
    options = parser.parse_args()
    configs = HERE / "worker_configs"
    rows: dict[str, dict[str, list[float]]] = {}
    for pool in ("solo", "prefork"):
        with Embedded(queues={pool: 1}, environment={"CELERYPIPE_WORKER_CONFIGS": str(configs)}) as url:
            print(f"measuring {pool} …", flush=True)
            rows[f"one no-op node, {pool} worker, 100 B"] = measure(
                url, pool, repetitions=options.repetitions, count=options.count, flood=options.flood
            )
    rows["import celerypipe"] = {"ms": [import_time()]}
    lines = table(rows)
    print("\n".join(lines))
    if options.write:
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("celery", "kombu", "redis"))
        head = [
            "# Results",
            "",
            f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}, "
            f"{platform.system()} {platform.machine()}; Redis over a unix socket.",
            f"Command: `{' '.join(['python', *sys.argv])}`",
            "",
        ]
        (HERE / "RESULTS.md").write_text("\n".join([*head, *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
