"""Endless sources before something slow: the memory of runner, worker and Redis stays flat, and the bounds hold."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from celerypipe import Message, Runner
from celerypipe.redis.connection import connect
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import ROOT, RedisServer, RunningWorker, StartWorker, eventually
from tests.servers.extent import LONG, at_length
from tests.servers.processes import descendants

#: Messages before memory counts, and seconds or messages after that.
SETTLED, MORE, LONG_SECONDS = 300, 900, 600.0
SIZE = 60_000
#: Bytes that a process may grow by: the messages in between are nearly four times as many.
GROWTH = 14 << 20
WINDOW = 16


@dataclass
class Memory:
    """Bytes that each of the three take."""

    runner: int
    worker: int
    redis: int

    @classmethod
    def of(cls, runner: int, worker: RunningWorker) -> Memory:
        with connect(worker.url) as client:
            used = int(client.info("memory")["used_memory"])
        pids = (worker.process.pid, *descendants(worker.process.pid))
        return cls(resident(runner), sum(map(resident, pids)), used)


def resident(pid: int) -> int:
    """Bytes of memory that a process takes."""
    with suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def endless(folder: Path, queue: str, *, node: float, sink: float) -> Path:
    """Frames as fast as they are taken, through a warped node and a sink that take so many seconds for each."""
    nodes = [
        {"name": "frames", "type": "source", "mark": "tests.nodes.remote.Frames"}
        | {"configuration": {"count": 1_000_000_000, "size": SIZE}},
        {"name": "there", "type": "proc", "mark": "tests.nodes.remote.Echo", "configuration": {"delay": node}}
        | {"warped": True, "warp_configuration": {"queue": queue, "window": WINDOW}},
        {"name": "ticks", "type": "sink", "mark": "tests.nodes.remote.Ticks"}
        | {"configuration": {"path": str(folder / "ticks"), "delay": sink}},
    ]
    links = [{"from": "frames", "to": "there"}, {"from": "there", "to": "ticks"}]
    definition = {"name": "endless", "id": "1", "nodes": nodes, "links": links}
    path = folder / "pipeline.json"
    path.write_text(json.dumps({"version": "1", "plugins": [], "pipeline": definition}))
    return path


@pytest.mark.timeout(900 if LONG else 120)
@pytest.mark.parametrize(
    ("node", "sink"),
    [
        pytest.param(0.0, 0.002, id="slow sink"),
        pytest.param(0.002, 0.0, id="slow node", marks=at_length),
        pytest.param(0.0, 0.0, id="endless source", marks=at_length),
    ],
)
def test_memory_is_flat(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path, node: float, sink: float
) -> None:
    worker = start_worker("flat", url=private_redis.url, pool="prefork", concurrency=1, config=CONFIG)
    ticks = tmp_path / "ticks"
    ticks.touch()
    command = [sys.executable, "-m", "celerypipe", "run", str(endless(tmp_path, "flat", node=node, sink=sink))]
    with (tmp_path / "log").open("wb") as log:
        runner = subprocess.Popen([*command, "--redis", private_redis.url, "--json"], cwd=ROOT, stdout=log, stderr=log)
    try:
        eventually(lambda: ticks.stat().st_size > SETTLED or runner.poll() is not None, "messages")
        before, began = Memory.of(runner.pid, worker), time.monotonic()
        with connect(private_redis.url) as client:
            while ticks.stat().st_size < SETTLED + MORE or (LONG and time.monotonic() - began < LONG_SECONDS):
                assert runner.poll() is None, (tmp_path / "log").read_text()
                for mailbox in client.scan_iter("celerypipe:mailbox:*"):
                    assert client.xlen(mailbox) <= WINDOW
                time.sleep(0.02)
        after = Memory.of(runner.pid, worker)
        grown = (after.runner - before.runner, after.worker - before.worker, after.redis - before.redis)
        assert max(grown) < GROWTH, f"grown by {grown} bytes: {before}, {after}"
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()


def test_the_byte_budget_holds_in_redis(start_worker: StartWorker, private_redis: RedisServer) -> None:
    start_worker("budget", url=private_redis.url, pool="solo", config=CONFIG)
    size, budget, count = 100_000, 600_000, 150

    def frames() -> Iterator[Message]:
        for number in range(count):
            yield Message(bytes([number]) * size)

    runner = Runner(private_redis.url, byte_budget=budget, shared_memory=False)
    pipeline = warped("tests.nodes.remote.Echo", "budget", configuration={"delay": 0.005}, limits={"window": 64})
    most = 0
    with connect(private_redis.url) as client:
        reading = Reading(runner.stream(pipeline, frames()))
        while reading.is_alive():
            # A message lies there and then its output; both are deleted with the next read of replies, and what has
            # taken their place in the budget may be there before. SCAN may name a key twice.
            most = max(most, len(set(client.scan_iter("celerypipe:blob:*", count=1000))))
    assert [payload[0] for payload in reading.payloads()] == list(range(count))
    assert 1 < most <= 3 * budget // size
