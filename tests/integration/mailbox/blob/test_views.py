"""Views on shared memory in the hands of users: kept, handed to a child, too many, left behind by a cancelled run."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from celerypipe import Message, RunCancelled, Runner
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import chain, frames
from tests.runs.traces import memory_of
from tests.servers import StartWorker, eventually

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is shared so on Linux only")


def test_what_a_forked_child_inherits_is_not_written_again(shared_worker: StartWorker, redis_url: str) -> None:
    worker = shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    fork = multiprocessing.get_context("fork")
    seen, go = fork.SimpleQueue(), fork.Event()

    def look(array: np.ndarray, number: int) -> None:
        go.wait(30)
        seen.put((number, {*array.tolist()}))

    children = []
    for number, message in enumerate(Runner(redis_url).stream(chain("tsolo", "Large"), frames(200))):
        if number % 50 == 10:
            children.append(fork.Process(target=look, args=(message.payload, 2 * (number % 100))))
            children[-1].start()
    go.set()
    found = [seen.get() for _ in children]
    for child in children:
        child.join()
    assert len(found) == 4
    assert all(content == {number} for number, content in found)
    mapped = Path(f"/proc/{worker.process.pid}/maps")
    eventually(lambda: "/celerypipe-run-" not in mapped.read_text(), "a worker that maps nothing of a run that is over")


def test_many_arrays_that_are_kept_cost_few_file_descriptors(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    before = len(os.listdir("/proc/self/fd"))
    outputs = list(Runner(redis_url).stream(chain("tsolo", "Large"), frames(400, 70_000)))
    assert len(os.listdir("/proc/self/fd")) < before + 150
    assert [int(message.payload[-1]) for message in outputs] == [2 * (number % 100) for number in range(400)]


def test_a_run_that_is_cancelled_leaves_nothing_in_memory(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    for _ in range(8):
        runner = Runner(redis_url)
        stream = runner.stream(chain("tsolo", "Large"), (Message(np.zeros(400_000, np.uint8)) for _ in range(10_000)))
        next(stream)
        memory = memory_of(runner)
        assert memory.exists()
        runner.cancel()
        with pytest.raises(RunCancelled):
            list(stream)
        assert not list(memory.parent.glob(f"{memory.name}*"))
