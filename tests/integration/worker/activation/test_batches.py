"""Nodes that take several messages at once, on real workers of every pool and here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import Message, NodeFailed, NodeTimeout, Pipeline, Runner, codec
from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.mailbox.blob.blob import Contents, Store
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.record import Record
from celerypipe.mailbox.status import read_status
from celerypipe.mailbox.wire import packed_entry
from celerypipe.message.message import new_id
from celerypipe.redis.connection import Client, connect
from celerypipe.redis.script import call
from celerypipe.worker.activation.alarm import Alarm
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.keeper import Lease
from celerypipe.worker.activation.serving import Serving
from tests.nodes.remote import CONFIG, Together
from tests.runs.pipelines import chain, warped
from tests.runs.reading import Reading, results
from tests.servers import POOLS, StartWorker, eventually
from tests.servers.extent import at_length

#: Payloads without those that ``Together`` treats in a way of their own.
NUMBERS = range(2, 302)
#: Seconds that a batch would wait for company: so long that a test which waits for it too has failed.
LONG_WAIT = 30.0


def together(queue: str, *, size: int = 8, wait: float = 0.0, **options: Any) -> Pipeline:
    limits = {"batch": {"size": size, "wait": wait}, **options.pop("limits", {})}
    return warped("tests.nodes.remote.Together", queue, limits=limits, **options)


def stream(runner: Runner, pipeline: Pipeline, payloads: Any) -> list[Message]:
    return list(runner.stream(pipeline, [Message(payload) for payload in payloads]))


def calls(diary: Path) -> list[list[Any]]:
    return [json.loads(line) for line in diary.read_text().splitlines()]


@pytest.fixture(params=["local", *(pool for pool, _ in POOLS)])
def runner(request: pytest.FixtureRequest, shared_worker: StartWorker, redis_url: str) -> Runner:
    """One for each pool, whose worker serves the queue ``t<pool>``, and one that runs all here."""
    if request.param == "local":
        return Runner(local=True)
    shared_worker(f"t{request.param}", pool=request.param, concurrency=dict(POOLS)[request.param], config=CONFIG)
    return Runner(redis_url)


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> str:
    return f"t{request.node.callspec.params['runner']}"


def test_under_load_a_node_gets_several_at_once_and_never_too_many(runner: Runner, queue: str) -> None:
    outputs = stream(runner, together(queue, configuration={"delay": 0.001}), NUMBERS)
    assert [message.payload for message in outputs] == [2 * number for number in NUMBERS]
    sizes = [message.meta["size"] for message in outputs]
    assert max(sizes) <= 8
    assert max(sizes) > 1


def test_each_message_has_its_own_outputs(runner: Runner, queue: str) -> None:
    outputs = stream(runner, together(queue, wait=0.2), [0, 1, 2, 0, 3, 1])
    assert [message.payload for message in outputs] == ["a", "b", 4, 6, "a", "b"]
    assert [message.sequence for message in outputs] == [1, 1, 2, 4, 5, 5]


def test_a_message_without_company_comes_back_too(runner: Runner, queue: str) -> None:
    # Its wait is longer than its timeout: that a batch fills is not its own time.
    assert results(runner, together(queue, wait=2.2, timeout=2.0), [2]) == [4]


def test_a_batch_that_raises_fails_only_the_guilty(runner: Runner, queue: str, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    pipeline = together(
        queue, wait=5.0, configuration={"bad": [5, 7], "diary": str(diary)}, on_error="skip", limits={"parallel": 1}
    )
    assert results(runner, pipeline, range(2, 10)) == [4, 6, 8, 12, 16, 18]
    if not queue.endswith("local"):  # here it takes what waits, and waits for no company
        assert calls(diary) == [list(range(2, 10)), *([number] for number in range(2, 10))]
    with pytest.raises(NodeFailed, match="there: ValueError: 5 is not to my taste") as caught:
        results(runner, together(queue, configuration={"bad": [5]}), range(2, 10))
    assert "in update_batch" in caught.value.remote_traceback


def test_an_output_that_is_wrong_fails_its_own_message(runner: Runner, queue: str) -> None:
    pipeline = together(queue, wait=0.2, on_error="skip")
    assert results(runner, pipeline, [2, "late", 3, "text", 4]) == [4, 6, 8]
    with pytest.raises(NodeFailed, match="not a Message"):
        results(runner, together(queue, wait=0.2), [2, "text", 3])


@pytest.mark.parametrize(("wrong", "found"), [("short", "outputs"), ("generator", "a list_iterator")])
def test_one_output_for_each_message_is_asked_for(runner: Runner, queue: str, wrong: str, found: str) -> None:
    pipeline = together(queue, wait=0.2, configuration={"wrong": wrong})
    with pytest.raises(
        NodeFailed, match=rf"there: update_batch\(\) returned .*{found} for \d messages?; return a list"
    ):
        results(runner, pipeline, range(2, 6))
    skipping = together(queue, wait=0.2, configuration={"wrong": wrong}, on_error="skip")
    assert results(runner, skipping, range(2, 6)) == []


@pytest.mark.parametrize(("pool", "slots"), [*POOLS, ("", 0)])
def test_a_batch_that_is_late_costs_only_who_is_late_alone(
    start_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    queue = f"blate{pool}"
    if pool:  # one of its own: a message that hangs here takes two threads, one together with others and one alone
        start_worker(queue, pool=pool, concurrency=slots + 1 if pool == "threads" else slots, config=CONFIG)
    runner = Runner(redis_url) if pool else Runner(local=True)
    skipping = together(queue, wait=0.2, timeout=0.6, on_error="skip", configuration={"delay": 0.001})
    outputs = results(runner, skipping, [*range(2, 10), 4.0, *range(10, 40)])
    assert outputs == [2 * number for number in range(2, 40)]
    with pytest.raises(NodeTimeout, match=r"there: 0.6 s exceeded \("):
        results(runner, together(queue, wait=0.2, timeout=0.6), [0.0, 5.0, 0.0])


@pytest.mark.parametrize(
    "runner",
    ["local", "solo", *(pytest.param(pool, marks=at_length) for pool in ("prefork", "threads"))],
    indirect=True,
)
def test_the_time_of_a_batch_that_raised_is_not_that_of_its_messages(runner: Runner, queue: str) -> None:
    # The whole batch takes most of the timeout, and so does each message alone.
    pipeline = together(queue, wait=0.2, timeout=2.0, on_error="skip", configuration={"bad": [4], "delay": 1.3})
    assert results(runner, pipeline, [2, 3, 4]) == [4, 6]


def test_a_thread_that_was_late_leaves_to_others_what_waited_behind(
    start_worker: StartWorker, redis_url: str, redis_client: Client, tmp_path: Path
) -> None:
    start_worker("bbehind", pool="threads", concurrency=3, config=CONFIG)
    diary = tmp_path / "diary"
    runner = Runner(redis_url)

    def messages() -> Iterator[Message]:
        yield from map(Message, [1.5, 2, 3, 4])
        eventually(lambda: diary.exists() and [4] in calls(diary), "each by itself")
        assert runner._current is not None
        bells = f"{Mailbox(runner._current.course.run_id, 'there').bell}*"
        eventually(lambda: not redis_client.keys(bells), "the end of those who were late")

    pipeline = together("bbehind", size=4, wait=0.2, timeout=0.5, on_error="skip", configuration={"diary": str(diary)})
    assert Reading(runner.stream(pipeline, messages())).payloads() == [4, 6, 8]
    assert sorted(calls(diary)) == [[1.5], [1.5, 2, 3, 4], [2], [3], [4]]


def test_what_gathers_is_not_late_while_another_node_runs(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = chain("tsolo", ("Together", {"batch": {"size": 2, "wait": 0.5}}), "Nap", n0={"timeout": 1.0})
    # The third one gathers while n1 naps for four seconds; its own time with its wait is a second and a half.
    assert results(Runner(redis_url), pipeline, [2, 0, 0]) == [4]


def test_a_hang_is_seen_while_messages_gather_upstream(start_worker: StartWorker, redis_url: str) -> None:
    start_worker("bhang", pool="threads", concurrency=1, config=CONFIG)
    pipeline = chain("bhang", ("Together", {"batch": {"size": 2, "wait": LONG_WAIT}}), "Nap", n1={"timeout": 0.5})
    began = time.monotonic()
    with pytest.raises(NodeTimeout, match=r"n1: 0.5 s exceeded"):
        results(Runner(redis_url), pipeline, [3, 3, 3])
    assert time.monotonic() - began < LONG_WAIT


def test_who_is_not_late_alone_needs_no_retry(runner: Runner, queue: str) -> None:
    pipeline = together(queue, size=4, wait=0.2, timeout=1.0)
    assert results(runner, pipeline, [2, 0.5, 0.5, 0.5]) == [4, 1.0, 1.0, 1.0]


def test_what_the_others_of_a_batch_take_is_waiting_and_no_transfer(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = together("tsolo", size=4, wait=10.0, configuration={"delay": 0.8})
    runner = Runner(redis_url)
    assert [message.meta["size"] for message in stream(runner, pipeline, range(2, 6))] == [4] * 4
    assert runner.report is not None
    node = runner.report["there"]
    assert node.running is not None
    assert node.waiting is not None
    assert node.running.p50 < 0.5, "its share of 0.8 s"
    assert node.waiting.p50 > 0.5, "the share of the others"


def test_what_is_tried_again_does_not_wait_for_company(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    limits = {"batch": {"size": 4, "wait": LONG_WAIT}, "backoff": 0.0}
    pipeline = together("tsolo", retries=1, on_error="skip", configuration={"bad": [3]}, limits=limits)
    began = time.monotonic()
    assert results(Runner(redis_url), pipeline, range(2, 6)) == [4, 8, 10]
    assert time.monotonic() - began < LONG_WAIT


def test_a_free_slot_takes_what_came_after_a_batch_that_takes_long(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("tprefork", pool="prefork", concurrency=2, config=CONFIG)
    diary = tmp_path / "diary"

    def messages() -> Iterator[Message]:
        yield Message(8.0)
        eventually(diary.exists, "the batch of one")
        yield Message(2)

    reading = Reading(Runner(redis_url).stream(together("tprefork", configuration={"diary": str(diary)}), messages()))
    eventually(lambda: diary.exists() and len(calls(diary)) == 2, "the other one")
    assert not reading.out, "the first batch is at work still"
    assert reading.payloads() == [16.0, 4]


def test_other_runs_do_not_wait_while_a_batch_gathers(
    shared_worker: StartWorker, redis_url: str, redis_client: Client
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    gathering = Reading(runner.stream(together("tsolo", wait=LONG_WAIT), [Message(2)]))

    def waits_for_company() -> bool:
        boxes = [
            box
            for box in read_status(redis_client).mailboxes
            if runner._current and box.run == runner._current.course.run_id
        ]
        return [(box.out, box.waiting) for box in boxes] == [(1, 0)]

    eventually(waits_for_company, "that it was given to somebody")
    began = time.monotonic()
    assert results(Runner(redis_url), warped("tests.nodes.remote.Echo", "tsolo"), [1]) == [1]
    assert time.monotonic() - began < LONG_WAIT
    assert gathering.payloads() == [4]


def test_a_sink_may_take_several_at_once(runner: Runner, queue: str, tmp_path: Path) -> None:
    path = tmp_path / "dropped"
    sink = NodeDefinition(
        name="sink",
        type="sink",
        mark="tests.nodes.remote.DropTogether",
        configuration={"path": str(path)},
        warped=True,
        warp_configuration={"queue": queue, "parallel": 1, "batch": {"size": 8, "wait": 0.2}},
    )
    source = NodeDefinition(name="source", type="source", mark="tests.nodes.here.Numbers", configuration={"count": 100})
    pipeline = Pipeline(name="sinking", nodes=[source, sink], links=[("source", "sink")])
    report = runner.run(pipeline)
    batches = calls(path)
    assert [number for batch in batches for number in batch] == list(range(100))
    assert 1 < max(map(len, batches)) <= 8
    assert report["sink"].received == 100


def test_a_node_that_only_takes_batches_runs_alone_and_unwarped(runner: Runner, queue: str) -> None:
    assert results(runner, warped("tests.nodes.remote.Together", queue), range(2, 50)) == list(range(4, 100, 2))
    here = NodeDefinition(name="here", type="proc", mark="tests.nodes.remote.Together")
    assert results(runner, Pipeline(name="test", nodes=[here], links=[]), range(2, 50)) == list(range(4, 100, 2))


@pytest.mark.parametrize(("shared", "compression"), [(True, "none"), (False, "none"), (False, "lz4")])
def test_large_arrays_in_a_batch_each_come_back_as_their_own(
    shared_worker: StartWorker, redis_url: str, shared: bool, compression: str
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url, shared_memory=shared)
    limits = {"compression": compression}
    arrays = [np.full(300_000, number % 100, np.uint8) for number in range(60)]
    outputs = stream(runner, together("tsolo", wait=0.05, configuration={"delay": 0.001}, limits=limits), arrays)
    assert [(int(m.payload.min()), int(m.payload.max())) for m in outputs] == [(2 * n, 2 * n) for n in range(60)]
    assert max(message.meta["size"] for message in outputs) > 1


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_a_worker_that_dies_in_a_batch_loses_nothing(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, pool: str
) -> None:
    gate, diary = tmp_path / "open", tmp_path / "diary"
    queue = f"bkill{pool}"
    pipeline = together(queue, wait=0.1, configuration={"gate": str(gate), "diary": str(diary)})
    reading = Reading(Runner(redis_url).stream(pipeline, (Message(number) for number in NUMBERS)))
    with connect(redis_url) as client:  # a whole batch is there before anybody takes the first of it
        eventually(lambda: [box for box in read_status(client).mailboxes if box.queue == queue and box.out >= 8])
    first = start_worker(queue, pool=pool, concurrency=1, config=CONFIG)
    eventually(lambda: diary.exists() and diary.read_text().endswith("\n"), "a batch")  # it waits at the gate now
    first.kill()
    assert len(calls(diary)[0]) > 1
    gate.touch()
    start_worker(queue, pool=pool, concurrency=1, config=CONFIG)
    assert reading.payloads() == [2 * number for number in NUMBERS]
    died, *after = calls(diary)
    assert all([number] in after for number in died)  # by itself: one of them may have killed it


def test_a_batch_whose_first_message_is_withdrawn_is_run_again_without_it(
    redis_client: Client, redis_url: str, tmp_path: Path
) -> None:
    mailbox = Mailbox(new_id(), "node")
    mailbox.make(redis_client)
    bodies = [packed_entry(number, 0, "", codec.encode_joined([Message(number)])) for number in range(2, 6)]
    call(redis_client, mailbox.sending(bodies, token="t", wanted=0, ttl=1000))
    entries = mailbox.receive(redis_client, "host.1.token.0", 4, None)
    gate = tmp_path / "open"
    instance = Instance(Listing("t", Together, "import"), {"gate": str(gate)}, name="node")
    instance.warm()
    with Alarm(DeadMan(None)) as alarm:
        lease = Lease(mailbox, 0, "host.1.token.0", alarm)
        serving = Serving(redis_client, lease, Record("t", {}, None, 1.0, 1.0, 9.0, 64, 1 << 20, batch=4), instance)

        def withdraw() -> None:
            eventually(lambda: lease.current == entries[0].id, "the batch")
            with connect(redis_url) as client:
                mailbox.withdraw(client, [entries[0].id, entries[2].id])
            alarm.interrupt("withdrawn", lease.name(entries[0].id))  # as the keeper does

        thread = threading.Thread(target=withdraw)
        thread.start()
        again = serving.handle(entries, Contents({}), Store(mailbox.run), 0.0)
        thread.join()
        assert again == [entries[number]._replace(alone=True) for number in (1, 3)]
        gate.touch()
        for entry in again:
            assert serving.handle([entry], Contents({}), Store(mailbox.run), 0.0) == []
    assert instance.node is not None, "a fresh one"
    with serving.outbox.emptied() as pairs:
        assert [codec.decode(answer.data)[0].payload for answer, _ in pairs] == [6, 10]


def test_a_chain_on_one_slot_fills_its_batches_meanwhile(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    limits = [{"batch": {"size": 16, "wait": 0.05}}, {"batch": {"size": 5}}]
    pipeline = chain("tsolo", "Echo", *(("Together", each) for each in limits))
    outputs = stream(Runner(redis_url), pipeline, NUMBERS)
    assert [message.payload for message in outputs] == [4 * number for number in NUMBERS]
    assert max(message.meta["size"] for message in outputs) <= 5


def test_log_lines_name_the_first_message_and_how_many_others(start_worker: StartWorker, redis_url: str) -> None:
    worker = start_worker("blog", pool="solo", config=CONFIG)
    messages = [Message(number) for number in range(2, 6)]
    pipeline = together("blog", size=4, wait=30.0)
    assert len(list(Runner(redis_url).stream(pipeline, messages))) == 4
    line = next(line for line in worker.text().splitlines() if "about to run 4" in line)
    assert f"node there message {messages[0].id} and 3 others: about to run 4" in line
