"""Workers of a stateful node die again and again, Redis loses its state: its results are those of a local run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import redis

from celerypipe import Message, NodeFailed, Pipeline, Runner, WorkerLost
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.redis.connection import connect
from celerypipe.runner.report import Report
from tests.nodes.stateful import CONFIG, sums
from tests.runs.pipelines import summing, warped
from tests.runs.reading import Reading, payloads
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.extent import LONG, at_length

DELAY = {"delay": 0.002}
NODES = ["RunningSum", "Window"]


def there(mark: str, queue: str) -> Pipeline:
    return warped(f"tests.nodes.stateful.{mark}", queue, configuration=DELAY)


def locally(mark: str, count: int) -> list[Any]:
    """What the node sends where nothing dies."""
    pipeline = warped(f"tests.nodes.stateful.{mark}", "nowhere")
    return [message.payload for message in Runner(local=True).stream(pipeline, map(Message, range(count)))]


@pytest.mark.timeout(600 if LONG else 60)
@pytest.mark.parametrize(("pool", "slots"), [("prefork", 2)])
def test_a_state_outlives_every_process_that_kept_it(
    start_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    """Two runs, whose processes are killed in turn in the middle of their work."""
    count, kills = (5000, 20) if LONG else (500, 2)
    start_worker("skill", pool=pool, concurrency=slots, config=CONFIG)
    expected = {node: locally(node, count) for node in NODES}
    readings = {
        node: Reading(Runner(redis_url).stream(there(node, "skill"), map(Message, range(count)))) for node in NODES
    }
    for kill in range(1, kills + 1):
        node = NODES[kill % 2]
        readings[node].wait_for(len(expected[node]) * kill // (kills + 1))
        os.kill(readings[node].out[-1].meta["pid"], signal.SIGKILL)
    for node in NODES:
        assert readings[node].payloads() == expected[node]


@at_length
@pytest.mark.timeout(600)
@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_a_state_outlives_its_workers_killed_every_two_seconds(
    start_worker: StartWorker, redis_url: str, node: str, pool: str
) -> None:
    count, queue = 5000, f"sworker{pool}"
    expected = locally(node, count)
    worker = start_worker(queue, pool=pool, concurrency=1, config=CONFIG)
    reading = Reading(Runner(redis_url).stream(there(node, queue), map(Message, range(count))))
    kills = 0
    while reading.is_alive():
        before = len(reading.out)
        # From its first result on: a lease of 3 s has to lapse first, so that by the clock hardly anybody got to work.
        eventually(lambda before=before: len(reading.out) > before or not reading.is_alive(), "progress")  # type: ignore[misc]
        reading.join(2.0)
        if reading.is_alive():
            worker.kill()
            kills += 1
            worker = start_worker(queue, pool=pool, concurrency=1, config=CONFIG)
    assert kills > 2
    assert reading.payloads() == expected


def lose_state(server: RedisServer) -> None:
    """As an eviction would: the state alone is gone."""
    with connect(server.url) as client:
        assert client.delete(*client.scan_iter("celerypipe:state:*"))


def lose_messages(server: RedisServer) -> None:
    with connect(server.url) as client:
        assert client.delete(*client.scan_iter("celerypipe:mailbox:*"))


def lose_answers(server: RedisServer) -> None:
    with connect(server.url) as client:
        assert client.delete(*client.scan_iter("celerypipe:reply:*"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "harm",
    [
        RedisServer.flush,
        pytest.param(lose_state, marks=at_length),
        pytest.param(lose_messages, marks=at_length),
        pytest.param(lose_answers, marks=at_length),
        pytest.param(RedisServer.restart_empty, marks=at_length),
        pytest.param(RedisServer.freeze, marks=at_length),
    ],
)
def test_the_runner_goes_back_to_the_snapshot_it_has(
    start_worker: StartWorker, private_redis: RedisServer, harm: Callable[[RedisServer], None]
) -> None:
    start_worker("sredis", url=private_redis.url, pool="prefork", concurrency=2, config=CONFIG)
    said: list[str] = []
    runner = Runner(private_redis.url, on_event=said.append)
    reading = Reading(runner.stream(there("RunningSum", "sredis"), map(Message, range(900))))
    for count in (20, 600):  # before there was a snapshot, and after
        reading.wait_for(count)
        harm(private_redis)
    assert reading.payloads() == sums(range(900))
    if harm is not RedisServer.freeze:
        assert any("it continues from the snapshot after message" in text for text in said), said


@at_length
def test_a_pinned_node_outlives_a_redis_that_is_silent_for_a_while(
    start_worker: StartWorker, private_redis: RedisServer
) -> None:
    start_worker("sredis", url=private_redis.url, pool="prefork", concurrency=2, config=CONFIG)
    pipeline = summing("sredis", "Forgetful", configuration=DELAY, limits={"pinned": True})
    reading = Reading(Runner(private_redis.url).stream(pipeline, map(Message, range(900))))
    reading.wait_for(100)
    private_redis.freeze()
    assert reading.payloads() == sums(range(900))


def test_a_pinned_node_has_nothing_to_go_back_to(start_worker: StartWorker, private_redis: RedisServer) -> None:
    start_worker("sredis", url=private_redis.url, pool="prefork", concurrency=2, config=CONFIG)
    pipeline = summing("sredis", "Forgetful", configuration=DELAY, limits={"pinned": True})
    reading = Reading(Runner(private_redis.url).stream(pipeline, map(Message, range(20_000))))
    reading.wait_for(20)
    private_redis.flush()
    with pytest.raises(WorkerLost, match=r"there: Redis lost .*a pinned node has no snapshot to go back to"):
        reading.payloads()


@at_length
def test_who_was_away_too_long_publishes_nothing(start_worker: StartWorker, redis_url: str) -> None:
    """A process that is stopped for longer than its lease, and wakes up when another one has gone on."""
    start_worker("szombie", pool="prefork", concurrency=2, config=CONFIG)
    reading = Reading(Runner(redis_url).stream(there("RunningSum", "szombie"), map(Message, range(1200))))
    reading.wait_for(100)
    asleep = reading.out[-1].meta["pid"]
    os.kill(asleep, signal.SIGSTOP)
    try:
        eventually(lambda: reading.out[-1].meta["pid"] != asleep, "another process")
    finally:
        os.kill(asleep, signal.SIGCONT)
    assert reading.payloads() == sums(range(1200))


@at_length
@pytest.mark.parametrize("shared", [True, False])
def test_what_a_state_is_made_of_counts_in_the_byte_budget(
    start_worker: StartWorker, redis_url: str, shared: bool
) -> None:
    """Twenty payloads fit in; a snapshot makes room before all of them wait for it."""
    start_worker("sbudget", pool="prefork", concurrency=1, config=CONFIG)
    runner = Runner(redis_url, byte_budget=2_000_000, shared_memory=shared)
    frames = (Message(np.full(25_000, number, np.uint32)) for number in range(200))
    out = runner.stream(summing("sbudget", "Picture"), frames)
    assert payloads(out) == sums(25_000 * number for number in range(200))


@at_length
def test_a_lost_payload_of_a_message_in_the_state_is_sent_again(
    start_worker: StartWorker, private_redis: RedisServer
) -> None:
    start_worker("sblob", url=private_redis.url, pool="prefork", concurrency=1, config=CONFIG)
    nodes = [
        NodeDefinition(name=name, type="proc", mark=mark, warped=True, warp_configuration={"queue": "sblob"})
        for name, mark in (("large", "tests.nodes.stateful.Enlarge"), ("there", "tests.nodes.stateful.Picture"))
    ]
    pipeline = Pipeline(name="test", nodes=nodes, links=[("large", "there")])
    runner = Runner(private_redis.url, shared_memory=False)
    reading = Reading(runner.stream(pipeline, map(Message, range(200))))
    reading.wait_for(50)
    with redis.Redis.from_url(private_redis.url) as client:
        client.delete(*client.scan_iter("celerypipe:blob:*", count=1000), "none")
    os.kill(reading.out[-1].meta["pid"], signal.SIGKILL)
    assert reading.payloads() == sums(20_000 * number for number in range(200))


def test_a_message_that_kills_its_process_says_how(start_worker: StartWorker, redis_url: str) -> None:
    start_worker("sfatal", pool="prefork", concurrency=1, config=CONFIG)
    stream = Runner(redis_url).stream(summing("sfatal", "Fatal", configuration={"bad": [3]}), map(Message, range(9)))
    with pytest.raises(WorkerLost, match=r"died 3 times: killed by SIGSEGV \(process \d+, \d+, \d+ of worker sfatal"):
        payloads(stream)


@at_length
def test_a_message_that_kills_its_process_leaves_nothing_in_the_state(
    start_worker: StartWorker, redis_url: str
) -> None:
    start_worker("sfatal", pool="prefork", concurrency=1, config=CONFIG)
    pipeline = summing("sfatal", "Fatal", configuration={"bad": [30]}, on_error="skip")
    out = payloads(Runner(redis_url).stream(pipeline, map(Message, range(60))))
    assert out == sums(number for number in range(60) if number != 30)


@at_length
def test_an_update_that_does_not_do_the_same_again_ends_the_run(
    start_worker: StartWorker, redis_url: str, tmp_path: Any
) -> None:
    start_worker("smoody", pool="prefork", concurrency=1, config=CONFIG)
    pipeline = summing("smoody", "Moody", configuration={"diary": str(tmp_path / "diary"), "delay": 0.002})
    reading = Reading(Runner(redis_url).stream(pipeline, map(Message, range(2000))))
    reading.wait_for(1)
    os.kill(reading.out[-1].meta["pid"], signal.SIGKILL)
    with pytest.raises(NodeFailed, match=r"went through before and fails now \(ValueError: not again\)"):
        reading.payloads()


def test_an_update_that_fails_when_redis_lost_what_it_did_ends_the_run_too(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Any
) -> None:
    """Its message was answered before, so nobody waits for it: what comes after it would wait for ever."""
    start_worker("smoody", url=private_redis.url, pool="prefork", concurrency=1, config=CONFIG)
    configuration = {"diary": str(tmp_path / "diary"), "delay": 0.002}
    pipeline = summing("smoody", "Moody", configuration=configuration, on_error="skip")
    reading = Reading(Runner(private_redis.url).stream(pipeline, map(Message, range(600))))
    reading.wait_for(20)
    private_redis.flush()
    with pytest.raises(NodeFailed, match=r"went through before and fails now \(ValueError: not again\)"):
        reading.payloads()


def test_what_was_given_up_without_a_worker_is_not_in_the_state_of_the_next_one(
    start_worker: StartWorker, redis_url: str
) -> None:
    worker = start_worker("snobody", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)

    def report() -> Report:
        assert runner._current is not None
        return runner._current.report()

    def numbers() -> Iterator[Message]:
        yield from map(Message, range(10))
        eventually(lambda: len(reading.out) == 10, "the first results")
        worker.stop()
        yield from map(Message, range(10, 2010))  # so many become one word
        eventually(lambda: sum(report()["there"].failed.values()) == 2000, "that all of them are given up")
        start_worker("snobody", pool="solo", concurrency=1, config=CONFIG)
        eventually(lambda: report().queues[0].circuit == "closed", "that the runner has seen it")
        yield from map(Message, range(2010, 2020))

    pipeline = summing("snobody", on_error="skip", limits={"on_no_worker": "fail"})
    reading = Reading(runner.stream(pipeline, numbers()))
    assert reading.payloads() == sums([*range(10), *range(2010, 2020)])


@pytest.mark.parametrize("leave", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=at_length)])
def test_when_the_process_of_a_pinned_node_goes_the_run_ends(
    start_worker: StartWorker, redis_url: str, leave: signal.Signals
) -> None:
    worker = start_worker("spinned", pool="prefork", concurrency=2, config=CONFIG)
    pipeline = summing("spinned", "Forgetful", configuration={"delay": 0.01}, limits={"pinned": True})
    reading = Reading(Runner(redis_url).stream(pipeline, map(Message, range(5000))))
    reading.wait_for(5)
    if leave == signal.SIGKILL:
        os.kill(reading.out[-1].meta["pid"], leave)
    else:
        worker.process.send_signal(leave)
    with pytest.raises(WorkerLost, match=r"there: the process that kept its state is gone"):
        reading.payloads()
    eventually(lambda: not reading.is_alive(), "the end of the run")
