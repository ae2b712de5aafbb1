"""celerypipe itself, measured as the others are: its runner here, its ``celery -A celerypipe worker`` processes.

One message after another goes into ``Runner.stream`` and comes out of it, so that the window is the others' and their
loops count the answers. Its own window, 64 a node or as wide as that, is never smaller.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.crew import Crew
from benchmarks.peers.venvs import HOME
from benchmarks.peers.workloads import TINY, Peer, Workload
from benchmarks.traffic import IDENTITY, chain
from celerypipe import Message, Runner

#: Queues of the three nodes: one worker with one slot, and a worker a node.
ONE, EACH = ("solo", "solo", "solo"), ("apart1", "apart2", "apart3")


@dataclass(frozen=True)
class Setting:
    """One way to run it. ``shared``: large payloads through shared memory; ``fresh``: nodes make their payload anew."""

    name: str
    queues: tuple[str, ...]
    shared: bool = True
    fresh: bool = False

    def offers(self, workload: Workload) -> bool:
        """Whether it differs from another setting here."""
        large = workload.payload != TINY
        return (large or (self.shared and not self.fresh)) and (workload.nodes > 1 or self.queues == ONE)


SETTINGS = (
    Setting("celerypipe, one worker", ONE),
    Setting("celerypipe, a worker a node", EACH),
    Setting("celerypipe, one worker, new arrays", ONE, fresh=True),
    Setting("celerypipe, a worker a node, new arrays", EACH, fresh=True),
    Setting("celerypipe, one worker, through Redis", ONE, shared=False),
    Setting("celerypipe, a worker a node, through Redis", EACH, shared=False),
)


class Celerypipe(Peer):
    """A runner in one setting; its stream is open while a workload is measured."""

    def __init__(self, setting: Setting, crew: Crew) -> None:
        self.setting, self.crew = setting, crew
        self.name = setting.name
        self.runner = Runner(crew.url, shared_memory=setting.shared)
        self.feed: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.stream: Iterator[Message] = iter(())

    def offers(self, workload: Workload) -> bool:
        """Whether it differs from another setting here."""
        return self.setting.offers(workload)

    def note(self, workload: Workload) -> str:
        """Where the bytes go."""
        if workload.payload == TINY:
            return ""
        where = "through shared memory" if self.setting.shared else "through Redis"
        what = "each node returns a copy" if self.setting.fresh else "a node passes on a reference to what it got"
        return f"{where}; {what}; the answer is a view, not read"

    def measure(self, workload: Workload) -> float:
        """The figure, in its unit; through one run of a pipeline."""
        if self.setting.shared and workload.payload != TINY and not self.crew.shares_memory():
            raise RuntimeError("the workers do not see this machine's shared memory")
        with self._open(workload):
            return super().measure(workload)

    @contextmanager
    def _open(self, workload: Workload) -> Iterator[None]:
        mark = "benchmarks.nodes.Copy" if self.setting.fresh else IDENTITY
        warp = {"window": max(64, workload.window)}
        pipeline = chain(self.setting.queues[: workload.nodes], mark=mark, warp=warp)
        self.feed = queue.SimpleQueue()
        stream = self.stream = self.runner.stream(pipeline, iter(self.feed.get, None))
        try:
            yield
            self.feed.put(None)
            for _ in stream:
                pass
        finally:
            self.feed.put(None)  # the thread that reads the feed waits for it, whatever happened
            stream.close()

    def send(self, value: Any, nodes: int) -> Any:
        """Hand it to the runner."""
        self.feed.put(Message(value))

    def receive(self, handle: Any) -> Any:
        """The next one that comes out."""
        return next(self.stream).payload

    def close(self) -> None:
        """End the workers; the first setting does it for all."""
        self.crew.close()


def start() -> Sequence[Peer]:
    """A solo worker a queue."""
    for log in HOME.glob("celerypipe-worker-*.log"):
        log.unlink()
    crew = Crew(os.environ["BENCH_REDIS"], HOME, "celerypipe-worker")
    try:
        for name in (*dict.fromkeys(ONE), *EACH):
            crew.workers(name)
    except BaseException:
        crew.close()
        raise
    return [Celerypipe(setting, crew) for setting in SETTINGS]
