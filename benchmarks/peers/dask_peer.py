"""Dask distributed: one worker process a node, tasks pinned to them; and its actors, called past the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distributed import Client, LocalCluster

from benchmarks.peers.workloads import TINY, Peer, Workload


class Stage:
    """A node that sends on what it receives."""

    def run(self, value: Any) -> Any:
        """The value itself."""
        return value


def same(value: Any) -> Any:
    """The value itself."""
    return value


class Futures(Peer):
    """A chain of futures; what is large is scattered straight to the first worker."""

    name = "Dask futures"

    def __init__(self, client: Client, cluster: LocalCluster) -> None:
        self.client, self.cluster = client, cluster
        self.workers = sorted(client.scheduler_info()["workers"])

    def note(self, workload: Workload) -> str:
        """How the value gets there."""
        batches = "the scheduler sends to workers and clients in batches, some milliseconds apart"
        return batches if workload.payload == TINY else f"scattered to the first worker directly; {batches}"

    def send(self, value: Any, nodes: int) -> Any:
        """Submit a task a node; the last one's future."""
        if not isinstance(value, bytes):
            value = self.client.scatter(value, workers=[self.workers[0]], direct=True, hash=False)
        for worker in self.workers[:nodes]:
            value = self.client.submit(same, value, workers=worker, pure=False)
        return value

    def receive(self, handle: Any) -> Any:
        """Fetch it."""
        return handle.result(timeout=30)

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
