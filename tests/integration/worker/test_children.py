"""Processes that nodes start on a worker: they share no handler and no flag with it, and never do its work."""

from __future__ import annotations

import os
import signal

import pytest

from celerypipe import Runner
from tests.nodes import forking
from tests.nodes.forking import CONFIG
from tests.servers import POOLS, StartWorker, eventually
from tests.servers.processes import alive


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_worker_hears_and_answers_as_before_whatever_its_nodes_fork(
    start_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    worker = start_worker("forks", pool=pool, concurrency=slots, config=CONFIG)
    with Runner(redis_url) as runner:
        assert runner.submit(forking.handlers).result(30) == []
        assert runner.submit(forking.terminated).result(30) == -signal.SIGTERM
        assert runner.submit(forking.pooled, 3).result(30) == [0, 1, 4]
        assert runner.submit(forking.loaded, 3).result(30) == [0, 1, 4]
        for method in ("fork", "spawn") if pool == "prefork" else ("fork",):
            assert runner.submit(forking.executed, method, 3).result(30) == [0, 1, 4]
        if slots > 1:  # another process or thread answers the child
            assert runner.submit(forking.asks, redis_url).result(30) == 49
        for way, status in (("return", 1), ("raise", 1), ("exit", 7)):
            assert runner.submit(forking.strays, way).result(30) == ("parent", status)
        assert runner.submit(forking.squared, 3).result(30) == 9
        _, *left = runner.submit(forking.left).result(30)
        assert len(left) == 4
        assert all(map(alive, left))
    assert "ValueError: in the child" in worker.text()
    assert "broken off" not in worker.text(), "a line to Redis was used by two processes"
    worker.process.terminate()
    assert worker.wait_for_end() == 0
    eventually(lambda: not any(map(alive, left)), "the end of what its nodes started")


@pytest.mark.parametrize(("pool", "slots"), [("prefork", 1), ("solo", 1)])
def test_what_nodes_started_ends_with_their_process(
    start_doomed: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    worker = start_doomed("forks", pool=pool, concurrency=slots, config=CONFIG)
    with Runner(redis_url) as runner:
        if pool == "prefork":
            process, *left = runner.submit(forking.left).result(30)
            os.kill(process, signal.SIGKILL)
            eventually(lambda: not any(map(alive, left)), "the end of what this process started")
        process, *left = runner.submit(forking.left).result(30)
        assert all(map(alive, left))
        worker.process.kill()  # and nobody else
        eventually(lambda: not any(map(alive, (process, *left))), "the end of all")
