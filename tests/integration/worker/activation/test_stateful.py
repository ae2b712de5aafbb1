"""Stateful nodes on real workers: their results are those of a run in one process, whatever happens to the worker."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import redis

from celerypipe import ConfigError, DefinitionError, Message, NodeFailed, NodeTimeout, Pipeline, Runner, WorkerLost
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.redis import keys
from tests.nodes.stateful import CONFIG, sums
from tests.runs.pipelines import summing, warped
from tests.runs.reading import Reading, payloads
from tests.runs.traces import keys_of, run_of
from tests.servers import FEW_POOLS, POOLS, StartWorker, eventually
from tests.servers.extent import LONG


@pytest.mark.parametrize(("pool", "slots"), FEW_POOLS)
def test_a_state_goes_on_from_one_activation_to_the_next(
    shared_worker: StartWorker, redis_url: str, redis_client: redis.Redis, pool: str, slots: int
) -> None:
    worker = shared_worker(f"s{pool}", pool=pool, concurrency=slots, config=CONFIG)
    limits = {"term": 0.1, "slice": 0.05, "linger": 0.0}
    before = worker.text().count(" received\n")
    runner = Runner(redis_url)
    stream = runner.stream(summing(f"s{pool}", configuration={"delay": 0.001}, limits=limits), map(Message, range(500)))
    out = [next(stream)]
    (state,) = keys_of(runner, redis_client, "state")
    assert 0 < redis_client.pttl(state) <= 60_000
    out += stream
    assert [message.payload for message in out] == sums(range(500))
    assert not keys_of(runner, redis_client, "state")
    assert worker.text().count(" received\n") > before + 1
    # The next run gets the same warm instance, and it begins anew.
    again = Runner(redis_url).stream(
        summing(f"s{pool}", configuration={"delay": 0.001}, limits=limits), map(Message, range(5))
    )
    assert payloads(again) == sums(range(5))


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_message_that_failed_leaves_nothing_in_the_state(
    shared_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    shared_worker(f"s{pool}", pool=pool, concurrency=slots, config=CONFIG)
    pipeline = summing(f"s{pool}", configuration={"bad": [3, 50, 51]}, on_error="skip")
    out = payloads(Runner(redis_url).stream(pipeline, map(Message, range(80))))
    assert out == sums(number for number in range(80) if number not in (3, 50, 51))


def test_a_retry_comes_before_what_came_after_it(shared_worker: StartWorker, redis_url: str, tmp_path: Any) -> None:
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    configuration = {"bad": [3, 20], "times": 2, "diary": str(tmp_path / "diary")}
    pipeline = summing("ssolo", configuration=configuration, retries=2, limits={"backoff": 0.05})
    out = payloads(Runner(redis_url).stream(pipeline, map(Message, range(40))))
    assert out == sums(range(40))
    assert (tmp_path / "diary").read_text().split().count("20") == 3


@pytest.mark.parametrize(("pool", "slots", "nap"), [("solo", 1, 60.0), ("prefork", 2, 60.0), ("threads", 2, 3.0)])
def test_an_update_that_was_interrupted_leaves_nothing_in_the_state(
    shared_worker: StartWorker, redis_url: str, pool: str, slots: int, nap: float
) -> None:
    """A thread cannot be interrupted: what it made is refused when it is through, since its message was withdrawn."""
    shared_worker(f"s{pool}", pool=pool, concurrency=slots, config=CONFIG)
    pipeline = summing(f"s{pool}", configuration={"slow": [7], "nap": nap}, timeout=2.0, on_error="skip")
    stream = Runner(redis_url).stream(pipeline, map(Message, range(30)))
    assert payloads(stream) == sums(number for number in range(30) if number != 7)


def test_a_timeout_of_a_stateful_node_ends_the_run_as_any_other(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    with pytest.raises(NodeTimeout, match=r"there: 1\.0 s exceeded"):
        payloads(Runner(redis_url).stream(summing("ssolo", configuration={"slow": [0]}, timeout=1.0), [Message(0)]))


def test_a_large_state_lies_apart_and_is_handed_over(
    shared_worker: StartWorker, redis_url: str, redis_client: redis.Redis
) -> None:
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    frames = [np.full(200_000, number, np.uint32) for number in range(60)]
    pipeline = summing("ssolo", "Picture", limits={"term": 0.05})
    runner = Runner(redis_url)
    out = payloads(runner.stream(pipeline, map(Message, frames)))
    assert out == sums(200_000 * number for number in range(60))
    eventually(lambda: not keys_of(runner, redis_client, "blob"), "the end of what lay apart")


def test_a_stateful_node_behind_another_on_the_same_worker(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    there = {"warped": True, "warp_configuration": {"queue": "ssolo"}}
    nodes = [
        NodeDefinition(name="echo", type="proc", mark="tests.nodes.remote.Echo", **there),
        NodeDefinition(name="sum", type="proc", mark="tests.nodes.stateful.RunningSum", **there),
        NodeDefinition(name="more", type="proc", mark="tests.nodes.stateful.RunningSum", **there),
    ]
    pipeline = Pipeline(name="test", nodes=nodes, links=[("echo", "sum"), ("sum", "more")])
    assert payloads(Runner(redis_url).stream(pipeline, map(Message, range(300)))) == sums(sums(range(300)))


def test_a_worker_that_shuts_down_hands_its_state_over(start_worker: StartWorker, redis_url: str) -> None:
    first = start_worker("shand", pool="prefork", concurrency=1, config=CONFIG)
    pipeline = summing("shand", configuration={"delay": 0.002})
    reading = Reading(Runner(redis_url).stream(pipeline, map(Message, range(600))))
    reading.wait_for(50)
    start_worker("shand", pool="solo", config=CONFIG)
    first.process.send_signal(signal.SIGTERM)
    assert first.wait_for_end() == 0, first.text()
    assert "(again)" not in first.text()
    assert reading.payloads() == sums(range(600))


# -- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "limits", "said"),
    [
        ("Forgetful", {}, r"it is stateful and has no snapshot\(\) and restore\(state\).*\"pinned\": true"),
        ("Forgetful", {"pinned": True}, r"1 of its worker's slots for the whole run, and .* has 1.*prefork -c 2"),
        ("RunningSum", {"parallel": 2}, r"warp_configuration.parallel: is 2, but a stateful node runs in one place"),
        ("RunningSum", {"batch": {"size": 4}}, r"warp_configuration.batch: is not for a stateful node"),
        ("RunningSum", {"on_no_worker": "local"}, r"warp_configuration.on_no_worker: is 'local', but the state"),
    ],
)
def test_what_a_stateful_node_cannot_do_is_refused(
    shared_worker: StartWorker, redis_url: str, node: str, limits: dict[str, Any], said: str
) -> None:
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    with pytest.raises((ConfigError, DefinitionError), match=said):
        payloads(Runner(redis_url).stream(summing("ssolo", node, limits=limits), [Message(1)]))


def test_only_a_stateful_node_is_pinned(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    with pytest.raises(DefinitionError, match=r"warp_configuration.pinned: is for a node that is stateful"):
        payloads(
            Runner(redis_url).stream(warped("tests.nodes.remote.Echo", "ssolo", limits={"pinned": True}), [Message(1)])
        )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("snapshot", r"there: snapshot\(\) failed: RuntimeError: the disk is full"),
        ("travel", r"there: snapshot\(\) returned what cannot travel: .*; return plain values"),
        ("restore", r"there: restore\(\) failed: RuntimeError: I know nothing of that"),
    ],
)
def test_a_state_that_cannot_be_kept_ends_the_run(
    shared_worker: StartWorker, redis_url: str, wrong: str, said: str
) -> None:
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = summing(
        "ssolo", "Awkward", configuration={"wrong": wrong, "delay": 0.005}, on_error="skip", limits={"term": 0.1}
    )
    with pytest.raises(NodeFailed, match=said) as caught:
        payloads(Runner(redis_url).stream(pipeline, map(Message, range(400))))
    assert caught.value.node == "there"
    if wrong != "travel":
        assert f"in {wrong}" in caught.value.remote_traceback


# -- pinned -----------------------------------------------------------------------------------------------------------


def test_a_pinned_node_stays_in_one_process(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("sprefork", pool="prefork", concurrency=2, config=CONFIG)
    limits = {"pinned": True, "term": 0.05, "linger": 0.0, "slice": 0.01}
    pipeline = summing("sprefork", "Forgetful", configuration={"delay": 0.001}, limits=limits)
    stream = Runner(redis_url).stream(pipeline, map(Message, range(300)))
    out = [next(stream)]
    # The other slot serves others meanwhile.
    other = Runner(redis_url).stream(warped("tests.nodes.remote.Echo", "sprefork"), map(Message, range(50)))
    assert payloads(other) == list(range(50))
    out += stream
    assert [message.payload for message in out] == sums(range(300))
    assert len({message.meta["pid"] for message in out}) == 1
    # It is let go with its run, and the next one begins anew.
    assert payloads(Runner(redis_url).stream(pipeline, map(Message, range(3)))) == sums(range(3))


def test_two_pinned_nodes_need_three_slots(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("sprefork", pool="prefork", concurrency=2, config=CONFIG)
    there = {"warped": True, "warp_configuration": {"queue": "sprefork", "pinned": True}}
    nodes = [
        NodeDefinition(name=name, type="proc", mark="tests.nodes.stateful.Forgetful", **there) for name in ("a", "b")
    ]
    with pytest.raises(ConfigError, match=r"2 pinned nodes keep 2 of its worker's slots .* has 2.*prefork -c 3"):
        payloads(Runner(redis_url).stream(Pipeline(name="test", nodes=nodes, links=[("a", "b")]), [Message(1)]))


def test_a_pinned_node_keeps_what_it_did_before_it_raised(
    shared_worker: StartWorker, redis_url: str, tmp_path: Any
) -> None:
    shared_worker("sprefork", pool="prefork", concurrency=2, config=CONFIG)
    limits = {"pinned": True, "backoff": 0.01}
    skipping = summing("sprefork", configuration={"bad": [3]}, on_error="skip", limits=limits)
    out = payloads(Runner(redis_url).stream(skipping, map(Message, range(10))))
    assert out == [total for number, total in enumerate(sums(range(10))) if number != 3]
    configuration = {"bad": [3], "times": 1, "diary": str(tmp_path / "diary")}
    retrying = summing("sprefork", configuration=configuration, retries=1, limits=limits)
    assert payloads(Runner(redis_url).stream(retrying, map(Message, range(5)))) == sums([0, 1, 2, 6, 4])


def test_a_pinned_node_that_is_broken_off_ends_the_run(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("sprefork", pool="prefork", concurrency=2, config=CONFIG)
    limits = {"pinned": True}
    pipeline = summing("sprefork", configuration={"slow": [3]}, timeout=1.5, on_error="skip", limits=limits)
    with pytest.raises(WorkerLost, match=r"there: a message was broken off .* no snapshot to go back to"):
        payloads(Runner(redis_url).stream(pipeline, map(Message, range(10))))


@pytest.mark.parametrize(
    "field", ["last", "blob", *(["token", "answered", "deaths", "data", "trouble"] if LONG else [])]
)
def test_what_a_stranger_writes_into_a_state_ends_no_run(
    shared_worker: StartWorker, redis_url: str, redis_client: redis.Redis, field: str
) -> None:
    """The runner goes back to what it has, as if Redis had lost it."""
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = summing("ssolo", configuration={"delay": 0.002}, limits={"term": 0.1, "linger": 0.0})
    reading = Reading(Runner(redis_url).stream(pipeline, map(Message, range(600))))
    reading.wait_for(20)
    state = next(name for name in redis_client.scan_iter("celerypipe:state:*") if redis_client.pttl(name) > 0)
    redis_client.hset(state, field, b"\xff{}")
    assert reading.payloads() == sums(range(600))


def test_what_a_stranger_writes_between_two_activations_ends_no_run(
    shared_worker: StartWorker, redis_url: str, redis_client: redis.Redis
) -> None:
    """Nobody has entered then, and nobody could: the run would stand still, and nobody would say why."""
    shared_worker("ssolo", pool="solo", concurrency=1, config=CONFIG)
    given: SimpleQueue[Message | None] = SimpleQueue()
    runner = Runner(redis_url)
    reading = Reading(runner.stream(summing("ssolo", limits={"linger": 0.0}), iter(given.get, None)))
    given.put(Message(0))
    reading.wait_for(1)
    state, bell = keys.USUAL.state(run_of(runner), "there"), f"{keys.USUAL.bell(run_of(runner), 'there')}0"
    harms: list[Callable[[], Any]] = [
        *[partial(redis_client.hset, state, field, b"\xff{}") for field in ("last", "token", "answered", "deaths")],
        partial(redis_client.set, state, "of another type"),
        partial(redis_client.delete, state),
    ]
    for number, harm in enumerate(harms, 1):
        eventually(lambda: not redis_client.exists(bell), "an end of the activation")
        harm()
        given.put(Message(number))
        reading.wait_for(number + 1)
    given.put(None)
    assert reading.payloads() == sums(range(len(harms) + 1))
