"""The workloads, the same for every peer, and how a peer is timed. A peer's own interpreter runs this: no celerypipe.

One at a time: the next message leaves when the last one is back; the median time. In flight: a full window, the next
leaves when the oldest is back; answers a second. 64 is the window celerypipe has unless told otherwise; a wide one
shows what a peer makes when nobody has to wait for the next message.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SECONDS = 2.0
#: A slow peer is measured longer, until so many answers are there, but never longer than PATIENCE.
LEAST = 12
PATIENCE = 20.0
#: A window that is wider than celerypipe's own.
WIDE = 1024


@dataclass(frozen=True)
class Workload:
    """What goes through how many no-op nodes in a row, each node in a process of its own."""

    payload: str
    nodes: int
    in_flight: bool
    window: int = 64

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.payload}, {'one node' if self.nodes == 1 else 'three nodes in a row'}"

    @property
    def figure(self) -> str:
        """What is measured."""
        wide = f", window {self.window:,}" if self.window == WIDE else ""
        return f"in flight{wide}" if self.in_flight else "one at a time"

    @property
    def unit(self) -> str:
        """Of the figure."""
        return "/s" if self.in_flight else "µs"


TINY, FRAME, ARRAY = "100 B", "640x480x3 uint8", "16 MiB float32"
WORKLOADS = (
    Workload(TINY, 1, in_flight=False),
    Workload(TINY, 1, in_flight=True),
    Workload(TINY, 1, in_flight=True, window=WIDE),
    Workload(FRAME, 1, in_flight=False),
    Workload(FRAME, 1, in_flight=True),
    Workload(TINY, 3, in_flight=False),
    Workload(TINY, 3, in_flight=True),
    Workload(FRAME, 3, in_flight=True),
    Workload(ARRAY, 3, in_flight=True, window=8),
)


def payload(workload: Workload) -> Any:
    """Bytes or an array; an array's pages are written to, so that none of them is the kernel's shared zero page."""
    if workload.payload == TINY:
        return b"x" * 100
    if workload.payload == FRAME:
        return np.full((480, 640, 3), 7, np.uint8)
    return np.full((2048, 2048), 7, np.float32)


def size(value: Any) -> int:
    """Bytes of a payload."""
    return len(value) if isinstance(value, bytes) else int(value.nbytes)


class Peer:
    """One peer, running. A script makes one and hands it to ``serve``; sending must not wait for the answer."""

    #: Named in the results.
    name = ""

    def note(self, workload: Workload) -> str:
        """What a reader must know about how this was measured."""
        return ""

    def offers(self, workload: Workload) -> bool:
        """Whether this one is a workload of its at all; if not, its results do not speak of it."""
        return True

    def lacks(self, workload: Workload) -> str:
        """Why the peer does not do this one; empty if it does."""
        return ""

    def send(self, value: Any, nodes: int) -> Any:
        """Send it on its way through the nodes; return what ``receive`` takes."""
        raise NotImplementedError

    def receive(self, handle: Any) -> Any:
        """Wait for the answer."""
        raise NotImplementedError

    def close(self) -> None:
        """End everything that was started."""

    def measure(self, workload: Workload) -> float:
        """The figure, in its unit."""
        value = payload(workload)
        for _ in range(3):
            self._check(self.receive(self.send(value, workload.nodes)), value)
        return self.in_flight(value, workload) if workload.in_flight else self.one_at_a_time(value, workload)

    def one_at_a_time(self, value: Any, workload: Workload) -> float:
        """Microseconds, median."""
        times: list[float] = []
        begun = time.perf_counter()
        while go_on(begun, len(times)):
            start = time.perf_counter()
            answer = self.receive(self.send(value, workload.nodes))
            times.append(time.perf_counter() - start)
            self._check(answer, value)
        return statistics.median(times) * 1e6

    def in_flight(self, value: Any, workload: Workload) -> float:
        """Answers a second while the window is full; filling and emptying it are not counted."""
        waiting = deque(self.send(value, workload.nodes) for _ in range(workload.window))
        self._check(self.receive(waiting.popleft()), value)
        begun, answers = time.perf_counter(), 0
        while go_on(begun, answers):
            waiting.append(self.send(value, workload.nodes))
            self._check(self.receive(waiting.popleft()), value)
            answers += 1
        elapsed = time.perf_counter() - begun
        while waiting:
            self.receive(waiting.popleft())
        return answers / elapsed

    @staticmethod
    def _check(answer: Any, value: Any) -> None:
        if size(answer) != size(value):
            raise ValueError(f"{size(answer)} bytes came back for {size(value)}")


def go_on(begun: float, answers: int) -> bool:
    """Whether to measure on."""
    elapsed = time.perf_counter() - begun
    return elapsed < SECONDS or (answers < LEAST and elapsed < PATIENCE)


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what a peer started; the parent finds whatever lies below it."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + 6
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
