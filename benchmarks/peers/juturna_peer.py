"""juturna's own gRPC warp: its Pipeline of warped nodes, its ``remotize`` service in a process a node.

The pipeline is fed through its first node's ``put`` and read from a queue among its last node's destinations, which is
how juturna's own service uses a node; its sources and sinks stay out of the figures.
"""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from juturna.components import Message, Pipeline
from juturna.payloads import BytesPayload, ImagePayload
from juturna.remotizer.c_protos.messaging_service_pb2_grpc import MessagingServiceStub
from juturna.remotizer.utils import create_envelope, deserialize_message, message_to_proto

from benchmarks.peers.workloads import Peer, Workload, end

OPTIONS = [("grpc.max_send_message_length", 100 * 2**20), ("grpc.max_receive_message_length", 100 * 2**20)]
TIMEOUT = 30


def message(value: Any) -> Message:
    """A juturna message around bytes or an array; a two-dimensional array is an image of one channel."""
    if isinstance(value, bytes):
        return Message(creator="bench", version=1, payload=BytesPayload(cnt=value))
    height, width, *depth = value.shape
    image = ImagePayload(image=value, width=width, height=height, depth=depth[0] if depth else 1, pixel_format="RGB")
    return Message(creator="bench", version=1, payload=image)


def content(answer: Message) -> bytes | np.ndarray:
    """What was in it."""
    return answer.payload.cnt if isinstance(answer.payload, BytesPayload) else answer.payload.image


class Warped(Peer):
    """Its own runner."""

    name = "juturna warp"

    def __init__(self, ports: list[int], folder: Path) -> None:
        self.answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.pipelines = {nodes: self._pipeline(ports[:nodes], folder) for nodes in (1, 3)}

    def _pipeline(self, ports: list[int], folder: Path) -> Pipeline:
        names = [f"noop{number}" for number in range(len(ports))]
        nodes = [
            {
                "name": name,
                "type": "proc",
                "mark": "noop",
                "warped": True,
                "configuration": {},
                "warp_configuration": {"grpc_host": "127.0.0.1", "grpc_port": port, "timeout": TIMEOUT},
            }
            for name, port in zip(names, ports, strict=True)
        ]
        links = [{"from": start, "to": end} for start, end in itertools.pairwise(names)]
        about = {"name": "bench", "id": f"bench{len(ports)}", "folder": str(folder / f"pipe{len(ports)}")}
        pipeline = Pipeline({"version": "0.1.0", "plugins": [], "pipeline": {**about, "nodes": nodes, "links": links}})
        pipeline.warmup()
        pipeline._nodes[names[-1]].add_destination("bench", self.answers)
        pipeline.start()
        return pipeline

    def note(self, workload: Workload) -> str:
        """What in flight means here."""
        if not workload.in_flight:
            return "its Pipeline and service, on 127.0.0.1"
        return "a warp waits for each answer before it sends the next: one message in flight a node"

    def send(self, value: Any, nodes: int) -> Any:
        """Put it into the first node's queue."""
        self.pipelines[nodes]._nodes["noop0"].put(message(value))

    def receive(self, handle: Any) -> Any:
        """The next one that comes out."""
        return content(self.answers.get(timeout=TIMEOUT))

    def close(self) -> None:
        """End its threads."""
        for pipeline in self.pipelines.values():
            pipeline.destroy()


class Stub(Peer):
    """Its service and its envelopes, but called by a client that does not wait: what the wire would give."""

    name = "juturna service, plain stub"

    def __init__(self, port: int, servers: list[subprocess.Popen[bytes]], folder: Path) -> None:
        self.servers, self.folder = servers, folder
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
        self.stub = MessagingServiceStub(self.channel)

    def note(self, workload: Workload) -> str:
        """What is left out."""
        return "its envelopes sent by a gRPC stub of ours, not by its runner; its service has 10 threads"

    def lacks(self, workload: Workload) -> str:
        """A row needs its runner."""
        return "" if workload.nodes == 1 else "a row of nodes is its runner's work"

    def send(self, value: Any, nodes: int) -> Any:
        """Call without waiting."""
        envelope = create_envelope(message_to_proto(message(value)), {}, {}, "bench", timeout=TIMEOUT)
        return self.stub.SendAndReceive.future(envelope, timeout=TIMEOUT)

    def receive(self, handle: Any) -> Any:
        """Wait for the answer and unpack it."""
        return content(deserialize_message(handle.result().message))

    def close(self) -> None:
        """End the servers."""
        self.channel.close()
        end(self.servers)
        shutil.rmtree(self.folder, ignore_errors=True)


def start() -> Sequence[Peer]:
    """A server process a node."""
    folder = Path(tempfile.mkdtemp(prefix="bench-juturna-"))
    ports = [_free_port() for _ in range(3)]
    # It makes folders where it is started, and imports plugins by their path from any place on the import path.
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "benchmarks.peers.juturna_server", "--port"]
    servers = [subprocess.Popen([*command, str(port)], cwd=folder, env=environment) for port in ports]  # noqa: S603
    for port in ports:
        _await_port(port)
    return [Warped(ports, folder), Stub(ports[0], servers, folder)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
