"""Dask distributed: one worker process a node, tasks pinned to them; and its actors, called past the scheduler."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from distributed import Client, LocalCluster, as_completed

from benchmarks.peers.workloads import ARRAY, Peer, Workload, go_on

TOO_LARGE = 10_000_000


class Stage:
    """A node that sends on what it receives."""

    def run(self, value: Any) -> Any:
        """The value itself."""
        return value


def same(value: Any) -> Any:
    """The value itself."""
    return value


class Futures(Peer):
    """A chain of futures; what Dask calls too large for a graph, 10 MB, is scattered straight to the first worker."""

    name = "Dask futures"

    def __init__(self, client: Client, cluster: LocalCluster) -> None:
        self.client, self.cluster = client, cluster
        self.workers = sorted(client.scheduler_info()["workers"])

    def note(self, workload: Workload) -> str:
        """How the value gets there."""
        batches = "the scheduler's messages go in batches, some milliseconds apart"
        return f"scattered to the first worker directly; {batches}" if workload.payload == ARRAY else batches

    def send(self, value: Any, nodes: int) -> Any:
        """Submit a task a node; the last one's future."""
        if not isinstance(value, bytes) and value.nbytes > TOO_LARGE:
            value = self.client.scatter(value, workers=[self.workers[0]], direct=True, hash=False)
        for worker in self.workers[:nodes]:
            value = self.client.submit(same, value, workers=worker, pure=False)
        return value

    def receive(self, handle: Any) -> Any:
        """Fetch it."""
        return handle.result(timeout=30)

    def in_flight(self, value: Any, workload: Workload) -> float:
        """Answers a second, taken as they come and many at once: a fetch for each would cost 6 ms each."""
        # A list: as_completed locks while it goes through what it is given, and scatter needs the thread that waits.
        first = [self.send(value, workload.nodes) for _ in range(workload.window)]
        done = as_completed(first, with_results=True)
        batches = done.batches()
        for _ in next(batches):
            done.add(self.send(value, workload.nodes))
        begun, answers = time.perf_counter(), 0
        for batch in batches:
            for _, answer in batch:
                self._check(answer, value)
            answers += len(batch)
            if not go_on(begun, answers):
                break
            for _ in batch:
                done.add(self.send(value, workload.nodes))
        return answers / (time.perf_counter() - begun)

    def close(self) -> None:
        """End the workers."""
        self.client.close()
        self.cluster.close()


class Actors(Peer):
    """An object on a worker, called by the client directly."""

    name = "Dask actor"

    def __init__(self, client: Client, worker: str) -> None:
        self.stage = client.submit(Stage, actor=True, workers=worker).result()

    def lacks(self, workload: Workload) -> str:
        """A row of them is the client's own work."""
        return "" if workload.nodes == 1 else "an actor's answer comes back to the client; there is no row"

    def send(self, value: Any, nodes: int) -> Any:
        """Call it."""
        return self.stage.run(value)

    def receive(self, handle: Any) -> Any:
        """Wait for the answer."""
        return handle.result(timeout=30)


def start() -> Sequence[Peer]:
    """Three worker processes of one thread each, and a scheduler in this one, without dashboards."""
    cluster = LocalCluster(
        n_workers=3,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        worker_dashboard_address=None,
    )
    futures = Futures(Client(cluster), cluster)
    return [Actors(futures.client, futures.workers[0]), futures]
