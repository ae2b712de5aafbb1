"""Stateful nodes whose snapshots are signed: who alters one, or puts an older one back, changes no result."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest

from celerypipe import Message, Runner
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from tests.nodes.stateful import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.runs.traces import report_of, run_of
from tests.servers import RunningWorker, StartWorker, eventually
from tests.servers.worker import KEY, SIGNED

COUNT = 400
#: Each activation restores what the one before has saved.
LIMITS = {"term": 0.3, "linger": 0.0}


@pytest.fixture
def worker(shared_worker: StartWorker, monkeypatch: pytest.MonkeyPatch) -> RunningWorker:
    """A worker with keys; the runs of the test have the same ones."""
    monkeypatch.setenv("CELERYPIPE_KEYS", KEY)
    return shared_worker("sealed", pool="solo", concurrency=1, config=CONFIG, env=SIGNED)


def refusals_of(runner: Runner, what: str) -> int:
    run = runner._current
    return 0 if run is None or run.keyring is None else run.keyring.refusals.counts[what]


def alter(client: Client, name: str) -> None:
    field = b"data" if client.hexists(name, "data") else b"blob"
    value = client.hget(name, field)
    if not value:  # the run is over, or the runner went back to the very beginning
        return
    client.hset(name, field, value[:-20] + bytes([(value[-20] + 1) % 256]) + value[-19:])


def plant(client: Client, name: str) -> None:
    """A snapshot of the stranger's own making."""
    if client.exists(name):
        client.hset(name, "data", b"\x00" * 40)


def put_back(client: Client, name: str) -> None:
    """One that we signed, for an earlier message."""
    before, last = client.hmget(name, "data", "last")
    eventually(lambda: client.hget(name, "last") != last, "the next snapshot")  # its key may be gone at the end
    if client.exists(name):
        client.hset(name, "data", before)


def remove(client: Client, name: str) -> None:
    """As if the node had none yet: it would begin anew in the middle."""
    client.hdel(name, "data", "blob")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("harm", [alter, plant, put_back, remove])
def test_who_tampers_with_a_state_changes_no_result(
    worker: RunningWorker, redis_url: str, redis_client: Client, harm: Callable[[Client, str], None]
) -> None:
    runner = Runner(redis_url)
    pipeline = warped("tests.nodes.stateful.RunningSum", "sealed", configuration={"delay": 0.005}, limits=LIMITS)
    reading = Reading(runner.stream(pipeline, map(Message, range(COUNT))))
    reading.wait_for(50)
    name = keys.USUAL.state(run_of(runner), "there")
    eventually(lambda: redis_client.hget(name, "last") != b"-1", "a snapshot")
    while reading.is_alive() and not refusals_of(runner, "state"):  # the next snapshot may have taken its place unseen
        harm(redis_client, name)
        reading.join(0.05)
    assert reading.payloads() == list(accumulate(range(COUNT)))
    assert report_of(runner).refused.get("state", 0) >= 1


def test_a_large_state_goes_on_with_keys(worker: RunningWorker, redis_url: str) -> None:
    runner = Runner(redis_url)
    frames = [np.full(100_000, number, np.uint32) for number in range(60)]
    pipeline = warped("tests.nodes.stateful.Picture", "sealed", limits={"term": 0.05})
    outputs = [message.payload for message in runner.stream(pipeline, map(Message, frames))]
    assert outputs == list(accumulate(100_000 * number for number in range(60)))
    assert not report_of(runner).refused


def test_a_payload_of_a_stateful_node_that_was_altered_is_refused_and_sent_again(
    worker: RunningWorker, redis_url: str, redis_client: Client
) -> None:
    runner = Runner(redis_url, shared_memory=False)
    frames = (Message(np.full(20_000, number, np.uint32)) for number in range(1000))
    pipeline = warped("tests.nodes.stateful.Picture", "sealed", limits=LIMITS, retries=5)
    reading = Reading(runner.stream(pipeline, frames))
    reading.wait_for(5)
    run = run_of(runner)
    while reading.is_alive() and not refusals_of(runner, "payload"):
        for name in list(redis_client.scan_iter(keys.USUAL.blob(run, "*"), count=1000)):
            redis_client.call("SET", name, b"\1" * 80_000, "XX", "KEEPTTL")
    assert reading.payloads() == list(accumulate(20_000 * number for number in range(1000)))
    assert report_of(runner).refused.get("payload", 0) >= 1
