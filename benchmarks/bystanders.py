"""Messages of a run while thousands of workers of other queues live in the same Redis, and what Redis sends it then."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from typing import Any

from benchmarks.figures import Sample, Target, beside
from benchmarks.open_runs import open_run, side_by_side
from benchmarks.places import Place, Server
from benchmarks.traffic import FLIGHT, ONCE, in_a_row, in_flight, one_at_a_time
from benchmarks.witness import Witness
from celerypipe import Message, Runner
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis.connection import Client, Command, accepted, connect

GROUP = "Workers of other queues"
COUNTS = (0, 1_000, 10_000)
#: So many queues share them.
QUEUES = 100
QUEUE = "solo"
#: Milliseconds that they stand: longer than all this takes.
STANDS = 3_600_000
#: So many commands are sent at once.
BATCH = 4_000
SLOWER = Target(1.1)
RATE = Target(0.9, least=True)
PAYLOAD = bytes(100)


def bystanders(*, messages: int, seconds: float, repetitions: int, counts: Sequence[int] = COUNTS) -> Iterator[Sample]:
    """One at a time and in flight, beside the same without them; each count has a server and a worker of its own."""
    with ExitStack() as stack:
        places = {count: peopled(stack, count) for count in counts}
        for _ in range(repetitions):
            first, once, rate = {}, {}, {}
            for count, place in places.items():  # they take turns, so that what disturbs one disturbs all
                runner = Runner(place.url)
                first[count] = _first(runner) * 1000
                once[count] = one_at_a_time(runner, in_a_row(QUEUE), PAYLOAD, messages) * 1000
                rate[count] = in_flight(runner, in_a_row(QUEUE), PAYLOAD, 10 * messages, messages)
                yield _beside(_sample(count, "first result of a run", "ms", first[count]), count, first)
                yield _beside(_sample(count, ONCE, "ms", once[count]), count, once, SLOWER)
                yield _beside(_sample(count, FLIGHT, "/s", rate[count]), count, rate, RATE)
        for count, place in places.items():
            yield _sample(count, "Redis sends an idle run", "B/s", _sent_to_a_run(place, seconds))


def _sample(count: int, figure: str, unit: str, value: float) -> Sample:
    return Sample(_named(count), figure, unit, value, group=GROUP)


def _named(count: int) -> str:
    return f"{count:,} of them"


def _first(runner: Runner) -> float:
    """Seconds from the beginning of a run, its look at Redis and workers included."""
    begin = time.perf_counter()
    came = [time.perf_counter() for _ in runner.stream(in_a_row(QUEUE), [Message(PAYLOAD)])]
    return came[0] - begin


def _beside(sample: Sample, count: int, values: dict[int, float], target: Target | None = None) -> Sample:
    first = next(iter(values))
    return sample if count == first else beside(sample, _named(first), values[first], target)


def peopled(stack: ExitStack, count: int, queue: str = "") -> Place:
    """A server with a worker, and so many that only Redis knows of, on that queue or on queues of their own."""
    place = stack.enter_context(Place("tcp", stack.enter_context(Server())))
    place.workers(QUEUE)
    with connect(place.url) as client:
        (record,) = read_presences(client)
        now = int(client.now() * 1000)
        commands = (each for number in range(count) for each in _appearing(client, number, queue, record, now))
        while some := list(islice(commands, BATCH)):
            accepted(client.together(*some))
        if len(read_presences(client)) != count + 1:
            raise RuntimeError(f"not all of {count} workers count as living")
    return place


def _appearing(client: Client, number: int, queue: str, record: dict[str, Any], now: int) -> Iterator[Command]:
    """What Redis knows of a worker: its record, its heartbeat, and its place on the lists."""
    names, process = client.names, Process(f"host-{number}", 1, f"{number:08x}")
    name, queue = str(process), queue or f"other-{number % QUEUES}"
    said = {**record, "id": name, "host": process.host, "pid": process.pid, "queues": [queue]}
    yield "SET", names.presence(name), json.dumps(said), "PX", STANDS
    beat = f" {process.pid} ={record['revision']}"
    yield "SET", names.heartbeat(process.host, process.life), beat, "PX", STANDS
    for each in (names.workers, names.serving(queue)):
        yield "ZADD", each, now + STANDS, name


def _sent_to_a_run(place: Place, seconds: float) -> float:
    """Bytes a second that Redis sends more while there is a run that waits for its source."""

    def sent() -> float:
        time.sleep(seconds / 5)  # until it has read all that it reads once
        return witness.traffic(seconds).sent

    with closing(Witness(place.url)) as witness:
        without = sent()
        with open_run(place.url, side_by_side(QUEUE, [0.0])):
            return sent() - without
