"""Workers are killed, one after the other, under load: every number comes once, in order, and soon."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from celerypipe import Message, NoWorker, Runner
from tests.nodes.remote import CONFIG
from tests.runs.counted import lasting
from tests.runs.metrics import outcomes
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import RunningWorker, StartWorker, eventually
from tests.servers.extent import LONG
from tests.servers.processes import descendants

#: Kills, and messages between two of them: by what came out, so that each kill meets work that is under way.
KILLS, BETWEEN = (20, 400) if LONG else (3, 100)
COUNT = (KILLS + 2) * BETWEEN
pytestmark = pytest.mark.timeout(600 if LONG else 60)
#: Seconds of work of a message, and what a kill may cost beyond work and warm-up.
WORK, LOST = 0.005, 6.0


class Timed(Reading):
    """Notes when each message came."""

    def __init__(self, stream: Iterator[Message]) -> None:
        self.times: list[float] = []
        super().__init__(self._noting(stream))

    def _noting(self, stream: Iterator[Message]) -> Iterator[Message]:
        for message in stream:
            self.times.append(time.monotonic())
            yield message

    def kill(self, what: str, kill: Callable[[int], None]) -> None:
        """Kill again and again, always amid work; nothing is lost by that but little time."""
        kills = []
        for number in range(KILLS):
            self.wait_for((number + 1) * BETWEEN)
            kills.append(len(self.times))
            kill(number)
        assert self.payloads() == list(range(COUNT))
        self.assert_short_pauses(what, kills)

    def assert_short_pauses(self, what: str, kills: list[int]) -> None:
        """Look at the longest time between two messages after each kill; ``kills``: how many there were by then.

        In the short form beside other tests one of them may be longer, but not most.
        """
        spans = itertools.pairwise([*kills, len(self.times)])
        longest = [max(b - a for a, b in itertools.pairwise(self.times[first - 1 : last])) for first, last in spans]
        print(f"longest pause after each kill of {what}, s: {[round(each, 2) for each in longest]}")
        assert (max(longest) if LONG else statistics.median(longest)) <= LOST


def test_one_of_three_workers_is_killed_again_and_again(start_doomed: StartWorker, redis_url: str) -> None:
    options = [("prefork", 2), ("prefork", 2), ("solo", 1)]
    workers = [
        start_doomed("kmany", pool=pool, concurrency=slots, config=CONFIG, wait=False) for pool, slots in options
    ]
    for worker in workers:
        worker.wait_for_presence()
    pipeline = warped("tests.nodes.remote.Echo", "kmany", configuration={"delay": WORK})
    reading = Timed(Runner(redis_url).stream(pipeline, map(Message, range(COUNT))))

    def kill(number: int) -> None:
        place = number % len(workers)
        pool, slots = options[place]
        workers[place].kill()
        workers[place] = start_doomed("kmany", pool=pool, concurrency=slots, config=CONFIG, wait=False)

    reading.kill("a worker", kill)
    assert outcomes(redis_url, "kmany") == {"done": COUNT}


def test_children_are_killed_again_and_again(start_doomed: StartWorker, redis_url: str) -> None:
    start_doomed("kchildren", pool="prefork", concurrency=2, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", "kchildren", configuration={"delay": WORK})
    reading = Timed(Runner(redis_url).stream(pipeline, map(Message, range(COUNT))))
    reading.kill("a child", lambda _: os.kill(reading.out[-1].meta["pid"], signal.SIGKILL))
    assert outcomes(redis_url, "kchildren") == {"done": COUNT}


def test_a_whole_prefork_worker_dies_with_its_children_and_another_takes_over(
    start_doomed: StartWorker, redis_url: str
) -> None:
    first = start_doomed("kwhole", pool="prefork", concurrency=2, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", "kwhole", configuration={"delay": WORK})
    reading = Timed(Runner(redis_url).stream(pipeline, map(Message, range(400))))
    reading.wait_for(50)
    children = descendants(first.process.pid)
    os.kill(first.process.pid, signal.SIGKILL)  # the worker alone: its children go with it
    _gone(first, children)
    start_doomed("kwhole", pool="prefork", concurrency=2, config=CONFIG)
    assert reading.payloads() == list(range(400))


def test_the_only_worker_is_killed_and_another_starts_five_seconds_later(
    start_doomed: StartWorker, redis_url: str
) -> None:
    first = start_doomed("konly", pool="solo", config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", "konly", configuration={"delay": WORK})
    reading = Timed(Runner(redis_url).stream(pipeline, map(Message, range(400))))
    reading.wait_for(50)
    first.kill()
    lasting(5.0)
    before = len(reading.times)
    start_doomed("konly", pool="solo", config=CONFIG)  # and it says that it is there
    there = time.monotonic()
    reading.wait_for(before + 1)
    print(f"the first message came {reading.times[before] - there:.2f} s after another worker")
    assert reading.times[before] - there <= LOST
    assert reading.payloads() == list(range(400))


@pytest.mark.parametrize("on_no_worker", ["local", "fail"])
def test_what_shall_happen_without_a_worker_happens_as_soon_as_the_only_one_is_dead(
    start_doomed: StartWorker, redis_url: str, on_no_worker: str
) -> None:
    queue = f"knone{on_no_worker}"
    worker = start_doomed(queue, pool="solo", config=CONFIG)
    limits = {"on_no_worker": on_no_worker, "window": 4}
    pipeline = warped("tests.nodes.remote.Echo", queue, configuration={"delay": WORK}, limits=limits)
    reading = Timed(Runner(redis_url).stream(pipeline, map(Message, range(400))))
    reading.wait_for(50)
    worker.kill()
    killed, before = time.monotonic(), len(reading.times)
    if on_no_worker == "fail":
        with pytest.raises(NoWorker):
            reading.payloads()
        decided = time.monotonic()
    else:
        reading.wait_for(before + 10)
        decided = reading.times[before + 9]
        assert reading.payloads() == list(range(400))
        assert outcomes(redis_url, queue) == {"done": 400}
    print(f"on_no_worker: {on_no_worker} acted {decided - killed:.2f} s after the kill")
    assert decided - killed <= 2 * LOST


def _gone(worker: RunningWorker, children: set[int]) -> None:
    worker.process.wait()
    eventually(lambda: not any(_exists(pid) for pid in children), "the end of its children")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
