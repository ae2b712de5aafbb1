"""dramatiq with its Redis broker and its Redis results: one queue and one worker process a node.

Threads and prefetch as they come. With one thread instead of its eight it fetches two messages at a time and polls in
between: a tenth of the rate.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.encoder import PickleEncoder
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.workloads import Peer, Workload, end

URL = os.environ["BENCH_REDIS"]

# Its JSON, which is what it uses by itself, carries neither bytes nor arrays.
dramatiq.set_encoder(PickleEncoder())
broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL, encoder=PickleEncoder())))
dramatiq.set_broker(broker)


def same(value: Any) -> Any:
    """The value itself."""
    return value


def stage(number: int, *, last: bool) -> Any:
    """An actor on a queue of its own; only a row's last one keeps its answer, and not for long."""
    name = f"{'last' if last else 'stage'}{number}"
    keep = {"store_results": True, "result_ttl": 10_000} if last else {}
    return dramatiq.actor(same, actor_name=name, queue_name=f"queue{number}", max_retries=0, **keep)


only = stage(1, last=True)
row = [stage(1, last=False), stage(2, last=False), stage(3, last=True)]


class Dramatiq(Peer):
    """Messages, and pipelines of messages."""

    name = "dramatiq"

    def __init__(self, workers: list[subprocess.Popen[bytes]]) -> None:
        self.workers = workers

    def note(self, workload: Workload) -> str:
        """What its figures come from."""
        return (
            "pickle, not JSON; eight threads a node, its default; an idle worker polls its queue, with growing pauses"
            + ("" if workload.in_flight else "; the pauses are the time")
        )

    def send(self, value: Any, nodes: int) -> Any:
        """Enqueue the first message; the workers enqueue the next ones."""
        if nodes == 1:
            return only.send(value)
        return dramatiq.pipeline([row[0].message(value), row[1].message(), row[2].message()]).run()

    def receive(self, handle: Any) -> Any:
        """Block on the answer's list in Redis."""
        return handle.get_result(block=True, timeout=30_000)

    def close(self) -> None:
        """End the workers."""
        end(self.workers)


def start() -> Sequence[Peer]:
    """A ``dramatiq`` command a queue."""
    command = [sys.executable, "-m", "dramatiq", __name__, "--processes", "1", "--queues"]
    return [Dramatiq([subprocess.Popen([*command, f"queue{number}"]) for number in (1, 2, 3)])]  # noqa: S603
