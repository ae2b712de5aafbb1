"""Ray: actors called one after another by reference, and compiled graphs over the same no-op class."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

# Ray listens on every interface unless it believes that it cannot be a cluster; then on 127.0.0.1 alone. The token
# would otherwise be written into the home folder. All of it is read when Ray is imported.
os.environ |= {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(),
}

import ray
from ray.dag import InputNode

from benchmarks.peers.workloads import ARRAY, Peer, Workload, payload

STORE = 2 * 2**30


@ray.remote(num_cpus=0)
class Stage:
    """A node that sends on what it receives."""

    def run(self, value: Any) -> Any:
        """The value itself."""
        return value


class Actors(Peer):
    """Three actors; a row is a chain of references, so values do not come back in between."""

    name = "Ray actors"

    def __init__(self) -> None:
        self.stages = [Stage.remote() for _ in range(3)]

    def note(self, workload: Workload) -> str:
        """Where the bytes go."""
        return "" if workload.payload == "100 B" else "through shared memory; the answer is a view of it, not read"

    def send(self, value: Any, nodes: int) -> Any:
        """Call the actors; a reference to the last one's answer."""
        for stage in self.stages[:nodes]:
            value = stage.run.remote(value)
        return value

    def receive(self, handle: Any) -> Any:
        """Wait for it."""
        return ray.get(handle, timeout=30)


class CompiledGraph(Peer):
    """One compiled graph at a time, on actors of its own; the next workload's graph replaces it."""

    name = "Ray compiled graph"

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.shape: tuple[object, ...] = ()
        self.graph: Any = None
        self.stages: list[Any] = []

    def note(self, workload: Workload) -> str:
        """Where the bytes go."""
        room = "16 MiB and a little" if workload.payload == ARRAY else "1 MiB"
        return f"{workload.window} buffers of {room} an edge, in shared memory; the answer is a view of one, not read"

    def measure(self, workload: Workload) -> float:
        """Compile for the workload's length and size, then as for everyone."""
        shape = (workload.nodes, workload.payload == ARRAY, workload.window)
        if shape != self.shape:
            self.drop()
            self.shape = shape
            self.compile(workload)
        return super().measure(workload)

    def compile(self, workload: Workload) -> None:
        """Bind fresh actors in a row."""
        self.stages = [Stage.remote() for _ in range(workload.nodes)]
        with InputNode() as node:
            for stage in self.stages:
                node = stage.run.bind(node)
        room = payload(workload).nbytes + 2**16 if workload.payload == ARRAY else 2**20
        self.graph = node.experimental_compile(
            _buffer_size_bytes=room,
            _max_inflight_executions=workload.window,
            _max_buffered_results=workload.window,
        )

    def drop(self) -> None:
        """End the graph with its actors; its own teardown waits 30 s for each actor of a row of three."""
        for stage in self.stages:
            ray.kill(stage)
        self.stages, self.graph = [], None

    def send(self, value: Any, nodes: int) -> Any:
        """Execute the graph."""
        return self.graph.execute(value)

    def receive(self, handle: Any) -> Any:
        """Wait for the answer."""
        return ray.get(handle, timeout=30)

    def close(self) -> None:
        """End Ray's processes; its logs go with them."""
        self.drop()
        ray.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


def start() -> Sequence[Peer]:
    """A Ray of two CPUs on this machine alone."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets lie in it, whose paths must be short
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=STORE,
        log_to_driver=False,
        _temp_dir=folder,
    )
    return [Actors(), CompiledGraph(folder)]
