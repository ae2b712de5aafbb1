"""A pipeline with a warped node, on real workers of every pool."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from celerypipe import (
    CelerypipeError,
    ConfigError,
    Message,
    NodeFailed,
    NodeTimeout,
    NoWorker,
    Runner,
)
from celerypipe.celery.application import app
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import results
from tests.runs.traces import keys_of
from tests.servers import POOLS, StartWorker, eventually
from tests.servers.extent import at_length
from tests.servers.task import connection_to


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_results_come_back_in_order_from_every_pool(
    shared_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    shared_worker(f"t{pool}", pool=pool, concurrency=slots, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", f"t{pool}")
    messages = list(Runner(redis_url).stream(pipeline, [Message(number) for number in range(2000)]))
    assert [message.payload for message in messages] == list(range(2000))
    assert all(message.creator == "there" and message.meta["pid"] != os.getpid() for message in messages)


def test_no_output_one_and_many(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    outputs = results(Runner(redis_url), warped("tests.nodes.remote.Repeat", "tsolo"), [0, 1, 3, 0, 2])
    assert outputs == [(1, 0), (3, 0), (3, 1), (3, 2), (2, 0), (2, 1)]


def test_the_log_of_a_worker_says_how_many_messages_there_were_and_that_the_run_finished(
    shared_worker: StartWorker, redis_url: str
) -> None:
    worker = shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    limits = {"linger": 30}  # until the run ends, however slow this machine is
    pipeline = warped(
        "tests.nodes.remote.Picky", "tsolo", configuration={"bad": [3, 5]}, on_error="skip", limits=limits
    )
    assert results(Runner(redis_url), pipeline, range(7)) == [0, 1, 2, 4, 6]
    worker.wait_for_text("'7 messages, 2 failed, ")
    assert re.search(
        r"tests\.nodes\.remote\.Picky.* succeeded in .*: '7 messages, 2 failed, \d+\.\d\d s; run finished'",
        worker.text(),
    )


@pytest.mark.parametrize("shared", [True, False])
def test_large_arrays_travel_as_blobs_and_leave_nothing_behind(
    shared_worker: StartWorker, redis_url: str, redis_client: redis.Redis, shared: bool
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    arrays = [np.full((640, 480, 3), number, np.uint8) for number in range(20)]
    runner = Runner(redis_url, shared_memory=shared)
    outputs = results(runner, warped("tests.nodes.remote.Large", "tsolo"), arrays)
    assert [int(array[0, 0, 0]) for array in outputs] == [2 * number for number in range(20)]
    assert all(array.dtype == np.uint8 and array.shape == (640, 480, 3) for array in outputs)
    assert [keys_of(runner, redis_client, kind) for kind in ("blob", "mailbox", "reply")] == [[], [], []]


def test_every_key_of_ours_has_a_ttl(shared_worker: StartWorker, redis_url: str, redis_client: redis.Redis) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url, shared_memory=False)
    stream = runner.stream(
        warped("tests.nodes.remote.Large", "tsolo"), [Message(np.zeros(100_000)) for _ in range(200)]
    )
    next(stream)
    kinds = set()

    def all_kinds_were_seen() -> bool:
        for key in keys_of(runner, redis_client, "*"):
            assert redis_client.pttl(key) != -1, key
            kinds.add(key.split(b":")[1])
        return {b"mailbox", b"reply", b"run", b"node", b"blob", b"bell"} <= kinds

    eventually(all_kinds_were_seen, "a key of each kind")
    stream.close()


def test_an_exception_over_there_is_typed_and_carries_its_traceback(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    with pytest.raises(NodeFailed, match="there: ValueError: 2 is not to my taste") as caught:
        results(Runner(redis_url), warped("tests.nodes.remote.Picky", "tsolo", configuration={"bad": [2]}), [1, 2, 3])
    assert "in update" in caught.value.remote_traceback
    assert "activation.py" not in caught.value.remote_traceback, "the user's frames are what helps"
    assert "in update" in str(caught.value.__cause__)
    assert caught.value.node == "there"
    assert caught.value.report["there"].failed == {"failed": 1}


def test_skip_goes_on_and_retries_come_first(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    skipping = warped("tests.nodes.remote.Picky", "tsolo", configuration={"bad": [2]}, on_error="skip")
    assert results(runner, skipping, [1, 2, 3]) == [1, 3]
    retrying = warped(
        "tests.nodes.remote.Picky",
        "tsolo",
        configuration={"bad": [2], "times": 2},
        retries=2,
        limits={"backoff": 0.01},
    )
    assert results(runner, retrying, [1, 2, 3]) == [1, 2, 3]


@pytest.mark.parametrize("what", ["number", "list", "generator", "unknown"])
def test_what_is_no_message_is_refused_with_the_cure(shared_worker: StartWorker, redis_url: str, what: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    second = "output 1 is a int, not a Message; return message.with_payload"
    cure = {"number": "with_payload", "list": second, "generator": second, "unknown": "inner"}[what]
    with pytest.raises(NodeFailed, match=cure) as caught:
        results(Runner(redis_url), warped("tests.nodes.remote.Odd", "tsolo", configuration={"what": what}), [1])
    assert caught.value.remote_traceback == "", "a sentence says it all"


def test_a_payload_that_cannot_travel_names_its_place(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    with pytest.raises(NodeFailed, match=r"there: .*payload\['inner'\]"):
        results(Runner(redis_url), warped("tests.nodes.remote.Echo", "tsolo"), [{"inner": object()}])


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_timeout_names_the_node_and_the_phase_in_every_pool(
    start_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    start_worker(f"late{pool}", pool=pool, concurrency=slots, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Nap", f"late{pool}", timeout=0.6)
    with pytest.raises(NodeTimeout, match=r"there: 0.6 s exceeded \(.*0\.\d s running on .*\)"):
        results(Runner(redis_url), pipeline, [0.0, 5.0])


def test_after_a_timeout_the_rest_of_the_run_goes_on(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tprefork", pool="prefork", concurrency=2, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Nap", "tprefork", timeout=0.6, on_error="skip")
    assert results(Runner(redis_url), pipeline, [0.0, 30.0, 0.01, 0.02]) == [0.0, 0.01, 0.02]


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 2)])
def test_a_message_that_hangs_costs_its_neighbours_nothing(
    shared_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    """Those before it, finished and not yet published, and those behind it, taken in the same batch."""
    shared_worker(f"t{pool}", pool=pool, concurrency=slots, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Nap", f"t{pool}", timeout=1.0, on_error="skip")
    naps = [0.0] * 30 + [30.0] + [0.0, 0.001, 0.002] * 10
    assert results(Runner(redis_url), pipeline, naps) == [nap for nap in naps if nap < 30]


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_model_may_take_longer_to_load_than_a_message_may(
    shared_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    shared_worker(f"t{pool}", pool=pool, concurrency=slots, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Heavy", f"t{pool}", configuration={"load": 2.0}, timeout=0.7)
    assert results(Runner(redis_url), pipeline, [0.0, 0.01, 0.0]) == [0.0, 0.01, 0.0]


@pytest.mark.parametrize(("pool", "slots"), [pytest.param("solo", 1, marks=at_length), ("prefork", 2)])
def test_a_node_may_take_its_time_to_let_go_after_a_timeout(
    start_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    """Longer than the grace after which a process that hangs is ended, and longer than the next message's timeout."""
    worker = start_worker(f"leave{pool}", pool=pool, concurrency=slots, config=CONFIG)
    configuration = {"leave": 4.0}
    pipeline = warped(
        "tests.nodes.remote.Heavy", f"leave{pool}", configuration=configuration, timeout=1.0, on_error="skip"
    )
    assert results(Runner(redis_url), pipeline, [0.0] * 9 + [30.0, 0.01, 0.0]) == [0.0] * 9 + [0.01, 0.0]
    assert "Timeout (0:00:0" not in worker.text()


def test_a_thread_that_hangs_keeps_its_neighbours_from_nothing(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    """It cannot be interrupted: what it holds goes to another thread."""
    start_worker("hthreads", pool="threads", concurrency=2, config=CONFIG)
    gate = tmp_path / "open"
    pipeline = warped("tests.nodes.remote.Gate", "hthreads", timeout=1.0, on_error="skip")
    numbers = list(range(500))
    payloads = [*numbers[:300], str(gate), *numbers[300:]]
    assert results(Runner(redis_url), pipeline, payloads) == numbers
    gate.touch()


def test_results_do_not_wait_for_a_slow_message_behind_them(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    gate = tmp_path / "open"
    pipeline = warped("tests.nodes.remote.Gate", "tsolo", timeout=30)
    stream = Runner(redis_url).stream(pipeline, [Message(payload) for payload in (*range(30), str(gate))])
    assert [next(stream).payload for _ in range(30)] == list(range(30))  # held back, they would wait for the gate
    gate.touch()
    assert [message.payload for message in stream] == [str(gate)]


def test_waiting_behind_ones_own_window_costs_no_time(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Nap", "tsolo", timeout=1.0)
    assert results(Runner(redis_url), pipeline, [0.05] * 40) == [0.05] * 40


def test_a_mark_its_workers_do_not_know_is_said_at_once(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    with pytest.raises(ConfigError, match=r"no worker of queue 'tsolo' knows the mark 'tests.nodes.remote.Ecko'.*Echo"):
        results(Runner(redis_url), warped("tests.nodes.remote.Ecko", "tsolo"), [1])


def test_a_node_that_cannot_warm_up_says_why(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    with pytest.raises(CelerypipeError, match=r"there: warmup\(\) failed: RuntimeError: the model file is not there"):
        results(Runner(redis_url), warped("tests.nodes.remote.Broken", "tsolo"), [1])


def test_a_queue_without_a_worker_is_said_with_the_command(
    shared_worker: StartWorker, redis_url: str, start_worker: StartWorker
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    said: list[str] = []
    heard = threading.Event()

    def hear(text: str) -> None:
        said.append(text)
        heard.set()

    stream = Runner(redis_url, on_event=hear).stream(warped("tests.nodes.remote.Echo", "tsolu"), [Message(1)])
    out: list[Message] = []
    reader = threading.Thread(target=lambda: out.extend(stream))
    reader.start()
    assert heard.wait(10)
    assert "no live worker serves queue 'tsolu' (nearest live queue: 'tsolo')" in said[0]
    assert "celery -A celerypipe worker -Q tsolu" in said[0]
    start_worker("tsolu", pool="solo", config=CONFIG)
    reader.join(20)
    assert [message.payload for message in out] == [1]


def test_on_no_worker_fail_and_local(redis_url: str) -> None:
    with pytest.raises(NoWorker, match="no live worker serves queue 'nobody'"):
        results(Runner(redis_url), warped("tests.nodes.remote.Echo", "nobody", limits={"on_no_worker": "fail"}), [1])
    local = warped("tests.nodes.remote.Echo", "nobody", limits={"on_no_worker": "local"})
    messages = list(Runner(redis_url).stream(local, [Message(number) for number in range(5)]))
    assert [message.payload for message in messages] == list(range(5))
    assert {message.meta["pid"] for message in messages} == {os.getpid()}


def test_local_runs_warped_nodes_here_through_the_codec() -> None:
    array = np.arange(5)
    (output,) = results(
        Runner(local=True), warped("tests.nodes.remote.Echo", "nobody"), [{"tuple": (1, 2), "array": array}]
    )
    assert output["tuple"] == (1, 2)
    assert output["array"] is not array
    assert not output["array"].flags.writeable


def test_two_slots_work_at_the_same_time(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tprefork", pool="prefork", concurrency=2, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", "tprefork", configuration={"delay": 0.05})
    messages = list(Runner(redis_url).stream(pipeline, [Message(number) for number in range(60)]))
    assert [message.payload for message in messages] == list(range(60))
    assert len({message.meta["pid"] for message in messages}) == 2


def test_a_function_under_node_runs_there(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    assert results(
        Runner(redis_url), warped("tests.nodes.remote.add", "tsolo", configuration={"amount": 5}), [1, 2]
    ) == [
        6,
        7,
    ]


def test_runs_share_a_worker(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    outputs: dict[int, list[Any]] = {}

    def one(number: int) -> None:
        payloads = [number * 1000 + index for index in range(300)]
        outputs[number] = results(Runner(redis_url), warped("tests.nodes.remote.Echo", "tsolo"), payloads)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert outputs == {number: [number * 1000 + index for index in range(300)] for number in range(4)}


def test_the_window_bounds_what_is_in_flight(
    shared_worker: StartWorker, redis_url: str, redis_client: redis.Redis
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    taken: list[int] = []

    def numbers() -> Any:
        for number in range(10_000):
            taken.append(number)
            yield Message(number)

    stream = Runner(redis_url).stream(warped("tests.nodes.remote.Echo", "tsolo", limits={"window": 8}), numbers())
    next(stream)
    quiet = threading.Event()
    while not quiet.wait(0.3):
        before = len(taken)
        if quiet.wait(0.3) or len(taken) == before:
            break
    # One was read; a reader's inbox of 64, a window of 8, and one in the source's hand.
    assert len(taken) <= 1 + 64 + 8 + 2
    stream.close()


def test_called_as_an_ordinary_task_a_mark_says_how_to_run_it(shared_worker: StartWorker, redis_url: str) -> None:
    worker = shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    with connection_to(redis_url) as connection:
        producer = app.amqp.Producer(connection, auto_declare=False)
        app.send_task("tests.nodes.remote.Echo", ["hello"], queue="tsolo", producer=producer)
    assert "is a node of celerypipe, not a function" in worker.wait_for_text("is a node of celerypipe")


def test_redis_that_is_not_there_or_wants_a_password() -> None:
    with pytest.raises(CelerypipeError, match=r"Redis is not there: unix:///nowhere.*--redis"):
        results(Runner("unix:///nowhere"), warped("tests.nodes.remote.Echo", "q"), [1])


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_the_log_lines_of_a_worker_carry_run_node_and_message(
    shared_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    worker = shared_worker(f"t{pool}", pool=pool, concurrency=slots, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Picky", f"t{pool}", configuration={"bad": [pool]}, on_error="skip")
    message = Message(pool)
    assert list(Runner(redis_url).stream(pipeline, [message])) == []
    line = next(line for line in worker.text().splitlines() if f"about to refuse {pool!r}" in line)
    assert re.search(rf"run [0-9a-f]+ node there message {message.id}: about to refuse", line)


def test_where_only_some_workers_of_a_queue_know_the_mark_those_do_the_work(
    start_worker: StartWorker, redis_url: str
) -> None:
    start_worker("halfway", pool="solo", config="")
    right = start_worker("halfway", pool="solo", config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", "halfway", limits={"linger": 0.0})
    for number in range(6):  # each needs a bell of its own, and half of them go the wrong way
        (message,) = Runner(redis_url).stream(pipeline, [Message(number)])
        assert (message.payload, message.meta["pid"]) == (number, right.process.pid)
