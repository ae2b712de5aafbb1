"""taskiq with taskiq-redis: one queue and one worker process a node, taskiq-pipelines between them."""

from __future__ import annotations

import asyncio
import base64
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any

import numpy as np
from taskiq_pipelines import Pipeline, PipelineMiddleware
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.peers.workloads import TINY, Peer, Workload, end, go_on

URL = os.environ["BENCH_REDIS"]
#: Seconds between two looks for an answer; taskiq's own 0.2 would be all that is measured.
INTERVAL = 0.001
TINY_SIZE = 100

# A list, since a stream keeps what was read until it is cut: 16 MiB a message. Results nobody reads, those of a row's
# first nodes, expire. Without socket_timeout=None a worker that is idle for 5 s takes no more work: redis-py 8 gives up
# on the BRPOP that it waits in, taskiq-redis 1.2 does not expect that. Its own JSON stays: with pickle, pipelines fail
# when a result's labels are saved.
broker = (
    ListQueueBroker(URL, queue_name=os.environ.get("BENCH_QUEUE", "taskiq1"), socket_timeout=None)
    .with_result_backend(RedisAsyncResultBackend(URL, keep_results=False, result_ex_time=10))
    .with_middlewares(PipelineMiddleware())
)


async def same(value: str) -> str:
    """The value itself."""
    return value


stages = [broker.register_task(same, f"stage{number}", queue_name=f"taskiq{number}") for number in (1, 2, 3)]


class Taskiq(Peer):
    """An asyncio client; values travel as text."""

    name = "taskiq"

    def __init__(self, workers: list[subprocess.Popen[bytes]]) -> None:
        self.workers = workers
        self.runner = asyncio.Runner()
        self.runner.run(broker.startup())

    def note(self, workload: Workload) -> str:
        """What had to be helped."""
        looks = f"looks for an answer every {INTERVAL * 1000:.0f} ms (200 ms unless told)"
        text = "" if workload.payload == TINY else "; as base64, coding included: its results go through JSON types"
        return looks + text

    def send(self, value: Any, nodes: int) -> Any:
        """Go there and back at once: nothing moves while the loop stands still."""
        return self.runner.run(self._back(self._away(value, nodes)))

    def receive(self, handle: Any) -> Any:
        """What came back."""
        return handle

    def one_at_a_time(self, value: Any, workload: Workload) -> float:
        """Microseconds, median."""
        return self.runner.run(self._one_at_a_time(value, workload))

    def in_flight(self, value: Any, workload: Workload) -> float:
        """Answers a second while the window is full; only the oldest message's answer is looked for."""
        return self.runner.run(self._in_flight(value, workload))

    async def _one_at_a_time(self, value: Any, workload: Workload) -> float:
        times: list[float] = []
        begun = time.perf_counter()
        while go_on(begun, len(times)):
            start = time.perf_counter()
            await self._back(self._away(value, workload.nodes))
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6

    async def _in_flight(self, value: Any, workload: Workload) -> float:
        waiting = deque(asyncio.create_task(self._away(value, workload.nodes)) for _ in range(workload.window))
        await self._back(waiting.popleft())
        begun, answers = time.perf_counter(), 0
        while go_on(begun, answers):
            waiting.append(asyncio.create_task(self._away(value, workload.nodes)))
            self._check(await self._back(waiting.popleft()), value)
            answers += 1
        elapsed = time.perf_counter() - begun
        while waiting:
            await self._back(waiting.popleft())
        return answers / elapsed

    async def _away(self, value: Any, nodes: int) -> Any:
        text = value.decode() if isinstance(value, bytes) else base64.b64encode(value).decode()
        if nodes == 1:
            return await stages[0].kiq(text)
        pipeline = Pipeline(broker, stages[0])
        for stage in stages[1:nodes]:
            pipeline.call_next(stage)
        return await pipeline.kiq(text)

    async def _back(self, sent: Awaitable[Any]) -> Any:
        result = await (await sent).wait_result(check_interval=INTERVAL, timeout=30)
        result.raise_for_error()
        text = result.return_value
        return text.encode() if len(text) == TINY_SIZE else np.frombuffer(base64.b64decode(text), np.uint8)

    def close(self) -> None:
        """End the workers."""
        end(self.workers)
        self.runner.run(broker.shutdown())
        self.runner.close()


def start() -> Sequence[Peer]:
    """A ``taskiq worker`` a queue."""
    command = [sys.executable, "-m", "taskiq", "worker", f"{__name__}:broker", "--workers", "1"]
    workers = [
        subprocess.Popen(command, env=os.environ | {"BENCH_QUEUE": f"taskiq{number}"})  # noqa: S603
        for number in (1, 2, 3)
    ]
    return [Taskiq(workers)]
