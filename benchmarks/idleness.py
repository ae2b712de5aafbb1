"""What a worker and a run ask of Redis while there is nothing to do, or one slow message a node; their connections."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from benchmarks.figures import Sample, Target
from benchmarks.open_runs import SLOW, open_run, side_by_side
from benchmarks.places import Place, Server
from benchmarks.processes import tree
from benchmarks.traffic import in_a_row
from benchmarks.witness import Witness
from celerypipe import Message, Runner
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis.connection import connect

GROUP = "Idle"
NODES = (1, 8, 64)
#: The worker with three children, all of which have served before anything is counted.
QUEUE, CHILDREN = "three", 3
#: Seconds of a message that is out as long as it is counted.
LONG = 60.0
COMMANDS, CONNECTIONS = "commands", "connections"


@dataclass(frozen=True)
class Party:
    """One side, and what it did."""

    commands: float
    #: Those that are Celery's own.
    celery: float
    connections: int
    names: Counter[str]


class Idle:
    """A server with one worker, and the processes of each side."""

    def __init__(self, server: Server, place: Place, witness: Witness) -> None:
        self.url = place.url
        self._witness = witness
        self._server = server.process.pid
        place.workers(QUEUE)
        with connect(self.url) as client:
            (record,) = read_presences(client)
        self._worker = int(record["pid"])
        self._children = {int(pid) for pid in record["processes"]} - {self._worker}
        if len(self._children) != CHILDREN:
            raise RuntimeError(f"the worker has {len(self._children)} child processes and not {CHILDREN}")

    def serve(self) -> None:
        """Have each child run nodes, which is when it connects."""
        pipeline = in_a_row(QUEUE, mark=SLOW, seconds=0.2)
        for _ in Runner(self.url).stream(pipeline, (Message(number) for number in range(8 * CHILDREN))):
            pass

    def watch(self, seconds: float) -> tuple[Party, Party, Party]:
        """What the worker, its children and the run in this process did, in a second."""
        time.sleep(max(1.0, seconds / 2))  # until what served has let go
        before = [self._witness.connections(pids) for pids in self._sides()]
        counted = self._witness.commands(seconds)
        after = [self._witness.connections(pids) for pids in self._sides()]
        worker, children, run = (
            _party(counted, {**first, **then}, len(then), seconds) for first, then in zip(before, after, strict=True)
        )
        return worker, children, run

    def _sides(self) -> Iterable[set[int]]:
        worker = tree(self._worker)
        return worker - self._children, self._children, tree(os.getpid()) - worker - {self._server}


def _party(counted: Counter[int], names: dict[int, str], connections: int, seconds: float) -> Party:
    asked = {port: counted[port] / seconds for port in names}
    celery = sum(rate for port, rate in asked.items() if names[port].startswith("celerypipe-worker"))
    return Party(sum(asked.values()), celery, connections, Counter(names.values()))


@contextmanager
def idle_worker() -> Iterator[Idle]:
    """A worker that has served and rests."""
    with Server() as server, Place("tcp", server) as place, closing(Witness(place.url)) as witness:
        idle = Idle(server, place, witness)
        idle.serve()
        yield idle


def idleness(*, seconds: float, quick: bool) -> Iterator[Sample]:
    """Count, for a worker alone, and for runs of some nodes that wait for their source, or for their nodes."""
    with idle_worker() as idle:
        worker, children, _ = idle.watch(seconds)
        yield _rate("worker", worker.commands, Target(3, of="figure"))
        yield _rate("worker, Celery's own part", worker.celery)
        yield _count("worker", worker.connections, Target(4, of="figure"))
        yield _rate("each of its children", children.commands / CHILDREN, Target(0, of="figure"))
        yield _count("each of its children", children.connections / CHILDREN, Target(2, of="figure"))
        for count in NODES[:1] if quick else NODES:
            with open_run(idle.url, side_by_side(QUEUE, [0.0] * count)):
                *_, run = idle.watch(seconds)
            nodes = f"run, {count} node{'s' if count > 1 else ''}"
            yield _rate(nodes, run.commands, Target(4 + 0.2 * count, of="figure"))
            yield _count(nodes, run.connections, Target(4, of="figure"))
            with open_run(idle.url, side_by_side(QUEUE, [LONG] * count)):
                worker, children, run = idle.watch(seconds)
            yield _rate(f"{nodes}, a message out at each", run.commands)
            yield _count(f"{nodes}, a message out at each", run.connections)
            yield _rate(f"worker with {CHILDREN} children at work, {nodes}", worker.commands + children.commands)
            yield _count(f"worker with {CHILDREN} children at work, {nodes}", worker.connections + children.connections)


def _rate(who: str, value: float, target: Target | None = None) -> Sample:
    return Sample(who, COMMANDS, "/s", value, target=target, group=GROUP)


def _count(who: str, value: float, target: Target | None = None) -> Sample:
    return Sample(who, CONNECTIONS, "", value, target=target, group=GROUP)
