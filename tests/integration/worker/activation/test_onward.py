"""A chain on one queue: what comes out of one node is handed to the next in the same process, and nobody can tell."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pytest

from celerypipe import Message, NodeTimeout, Pipeline, Report, RunCancelled, Runner
from celerypipe.errors import CodecError
from celerypipe.runner.carrier.cargo import Cargo
from celerypipe.runner.warp.warp import Warp
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import chain
from tests.servers import StartWorker, eventually
from tests.servers.extent import at_length

#: The first messages go the long way: nobody knows yet how long the nodes take.
USUAL = 10
#: The payload that something happens to.
HARD = 30


def one_by_one(runner: Runner, pipeline: Pipeline, payloads: Iterable[Any]) -> list[Any]:
    """What comes out if each message is sent when the one before it is through, or has failed."""
    turn: SimpleQueue[None] = SimpleQueue()

    def messages() -> Iterator[Message]:
        for payload in payloads:
            yield Message(payload)
            if payload != HARD:
                turn.get()

    out = []
    with suppress(RunCancelled):
        for message in runner.stream(pipeline, messages()):
            out.append(message.payload)
            if message.payload != HARD:
                turn.put(None)
    return out


def trials(queue: str, tmp_path: Path, count: int = 3, **options: Any) -> Pipeline:
    """A chain of trials n0, n1, …; options of each by its name, ``trial`` in them for what it does."""
    marks = []
    for number in range(count):
        settings = options.setdefault(f"n{number}", {})
        extra = settings.pop("trial", {})
        settings["configuration"] = {"name": f"n{number}", "diary": str(tmp_path / "diary"), **extra}
        marks.append(("Trial", settings.pop("limits", {})))
    return chain(queue, *marks, **options)


def diary(tmp_path: Path) -> Counter[str]:
    path = tmp_path / "diary"
    return Counter(path.read_text().splitlines() if path.exists() else ())


def nodes_of(runner: Runner) -> dict[str, Any]:
    report: Report | None = runner.report
    assert report is not None
    return {node.name: node for node in report.nodes}


def went_by(nodes: dict[str, Any], name: str) -> bool:
    """Did most messages come to a node without a mailbox? Then only its results travelled, and not its messages."""
    return bool(nodes[name].bytes < 0.75 * nodes["n0"].bytes)


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 2), pytest.param("threads", 2, marks=at_length)])
def test_a_chain_is_passed_in_one_go_where_it_can_be_interrupted(
    shared_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    shared_worker(f"t{pool}", pool=pool, concurrency=slots, config=CONFIG)
    runner = Runner(redis_url)
    pipeline = chain(
        f"t{pool}", *["Echo"] * 3, **{f"n{number}": {"configuration": {"delay": number * 1e-6}} for number in range(3)}
    )
    assert one_by_one(runner, pipeline, range(200)) == list(range(200))
    nodes = nodes_of(runner)
    assert [nodes[name].received for name in ("n0", "n1", "n2")] == [200, 200, 200]
    if pool != "prefork":  # there each of two processes may serve one of them, for as long as messages come
        assert [went_by(nodes, name) for name in ("n1", "n2")] == [pool == "solo"] * 2


def test_a_failure_is_that_of_its_node_and_happens_once(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = trials(
        "tsolo", tmp_path, n1={"trial": {"raises": (HARD,)}, "on_error": "dead_letter"}, folder=str(tmp_path)
    )
    pipeline = pipeline.model_copy(update={"folder": None})
    runner = Runner(redis_url)
    assert one_by_one(runner, pipeline, range(60)) == [number for number in range(60) if number != HARD]
    nodes, seen = nodes_of(runner), diary(tmp_path)
    assert (nodes["n0"].failed, nodes["n1"].failed, nodes["n1"].dead, nodes["n2"].received) == (
        {},
        {"failed": 1},
        1,
        59,
    )
    assert went_by(nodes, "n1")
    assert set(seen.values()) == {1}  # nobody got a message twice
    assert f"n2 {HARD}" not in seen


def test_the_error_of_a_later_node_says_where_it_was(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = trials("tsolo", tmp_path, n2={"trial": {"raises": (HARD,)}})
    with pytest.raises(Exception, match=f"n2: ValueError: {HARD} is not to my taste") as caught:
        one_by_one(Runner(redis_url), pipeline, range(60))
    assert caught.value.node == "n2"  # type: ignore[attr-defined]
    assert "in update" in str(caught.value.__cause__)


def test_a_later_node_is_tried_again_by_itself(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    again = {"trial": {"raises": (HARD,), "once": True}, "retries": 1, "limits": {"backoff": 0.01}}
    pipeline = trials("tsolo", tmp_path, n1=again)
    runner = Runner(redis_url)
    assert one_by_one(runner, pipeline, range(60)) == list(range(60))
    seen = diary(tmp_path)
    assert (seen[f"n0 {HARD}"], seen[f"n1 {HARD}"], seen[f"n2 {HARD}"]) == (1, 2, 1)
    assert nodes_of(runner)["n1"].retried == 1


def test_each_node_on_the_way_has_its_own_time(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    slow = {"trial": {"sleeps": (HARD,)}, "timeout": 0.3, "on_error": "skip"}
    pipeline = trials("tsolo", tmp_path, n0={"timeout": 8.0}, n1=slow, n2={"timeout": 8.0})
    runner = Runner(redis_url)
    assert one_by_one(runner, pipeline, range(60)) == [number for number in range(60) if number != HARD]
    nodes, seen = nodes_of(runner), diary(tmp_path)
    assert (nodes["n0"].failed, nodes["n1"].failed, nodes["n2"].failed) == ({}, {"timeout": 1}, {})
    assert (seen[f"n0 {HARD}"], seen[f"n1 {HARD}"]) == (1, 1)


def test_a_node_that_takes_its_time_does_not_cost_the_one_before_it_its_own(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = trials("tsolo", tmp_path, n0={"timeout": 5.5}, n2={"trial": {"sleeps": (HARD,), "seconds": 6.0}})
    assert one_by_one(Runner(redis_url), pipeline, range(40)) == list(range(40))
    assert set(diary(tmp_path).values()) == {1}


def test_a_node_that_nearly_used_up_its_time_is_answered_before_the_next_begins(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    # The keeper looks once a second from the beginning of the activation: here just before the second node begins.
    start_worker("onear", pool="solo", config=CONFIG)
    slow, slower = {"sleeps": (HARD,), "seconds": 2.05}, {"sleeps": (HARD,), "seconds": 1.2}
    pipeline = trials("onear", tmp_path, n0={"trial": slow, "timeout": 2.5}, n1={"trial": slower})
    assert one_by_one(Runner(redis_url), pipeline, range(HARD + 1)) == list(range(HARD + 1))
    assert set(diary(tmp_path).values()) == {1}


def test_the_runner_counts_the_time_of_a_node_on_the_way_if_its_worker_cannot(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    worker = start_worker("ofrozen", pool="solo", config=CONFIG)
    pipeline = trials("ofrozen", tmp_path, n0={"timeout": 30.0}, n1={"trial": {"sleeps": (HARD,)}, "timeout": 4.0})
    runner = Runner(redis_url)
    with ThreadPoolExecutor(1) as executor:
        coming = executor.submit(one_by_one, runner, pipeline, range(HARD + 1))
        run: Any = eventually(lambda: runner._current, "a run")
        first, second = (run.stations[name].flights for name in ("n0", "n1"))
        eventually(lambda: f"n1 {HARD}" in diary(tmp_path), "the node that sleeps")
        # On a machine that was slow a moment ago it came by its mailbox.
        eventually(lambda: second or any(flight.note for flight in list(first.values())), "word of a node at work")
        os.killpg(worker.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(NodeTimeout, match=r"n1: 4\.0 s exceeded") as caught:
                coming.result(40)
        finally:
            os.killpg(worker.process.pid, signal.SIGCONT)
    assert caught.value.node == "n1"
    assert nodes_of(runner)["n0"].failed == {}


@pytest.mark.parametrize(("once", "timeout"), [(True, None), (False, 3.0)])
def test_who_kills_the_process_is_found_among_all_on_the_way(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, once: bool, timeout: float | None
) -> None:
    start_worker(f"odie{once}".lower(), pool="prefork", concurrency=1, config=CONFIG)
    deadly = {"trial": {"dies": (HARD,), "once": once}, "on_error": "skip"}
    pipeline = trials(f"odie{once}".lower(), tmp_path, n0={"timeout": timeout}, n1=deadly)
    runner = Runner(redis_url)
    out = one_by_one(runner, pipeline, range(60))
    assert out == [number for number in range(60) if once or number != HARD]
    nodes = nodes_of(runner)
    assert (nodes["n0"].failed, nodes["n1"].failed) == ({}, {} if once else {"lost": 1})


def test_who_holds_the_gil_is_found_among_all_on_the_way(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    start_worker("ogrip", pool="prefork", concurrency=1, config=CONFIG)
    gripping = {"trial": {"grips": (HARD,)}, "timeout": 0.5, "on_error": "skip"}
    # The first one's own time, which the guard of its process was armed with, is much longer.
    pipeline = trials("ogrip", tmp_path, n0={"timeout": 12.0}, n1=gripping)
    runner = Runner(redis_url)
    assert one_by_one(runner, pipeline, range(HARD + 1)) == list(range(HARD))
    nodes = nodes_of(runner)
    assert (nodes["n0"].failed, nodes["n1"].failed) == ({}, {"timeout": 1})


def test_a_node_with_one_slot_does_not_keep_the_one_after_it_to_that(
    shared_worker: StartWorker, redis_url: str
) -> None:
    shared_worker("tprefork", pool="prefork", concurrency=2, config=CONFIG)
    pipeline = chain("tprefork", ("Echo", {"parallel": 1}), "Echo", n1={"configuration": {"delay": 0.004}})
    out = list(Runner(redis_url).stream(pipeline, map(Message, range(400))))
    processes = Counter(message.meta["pid"] for message in out[200:])
    assert len(processes) == 2
    assert min(processes.values()) > 20


def test_a_result_that_cannot_be_read_is_a_failure_of_the_node_that_made_it(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    unload = Cargo.unload

    def unread(cargo: Cargo, client: Any, warp: Warp, parent: Message, *others: Any) -> Any:
        if warp.name == "n1" and parent.payload == HARD:
            raise CodecError("packed with what is not installed here")
        return unload(cargo, client, warp, parent, *others)

    monkeypatch.setattr(Cargo, "unload", unread)
    runner = Runner(redis_url)
    assert one_by_one(runner, trials("tsolo", tmp_path, n1={"on_error": "skip"}), range(HARD + 1)) == list(range(HARD))
    nodes = nodes_of(runner)
    assert (nodes["n0"].failed, nodes["n1"].failed, nodes["n1"].received) == ({}, {"failed": 1}, HARD + 1)


def test_many_messages_out_of_one_go_on_in_order(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    pipeline = chain("tsolo", "Repeat", ("Echo", {"window": 2}), ("Echo", {"window": 1}))
    payloads = [*[1] * USUAL, 40, 300, 0, 3]
    expected = [(count, copy) for count in payloads for copy in range(count)]
    assert [m.payload for m in Runner(redis_url).stream(pipeline, map(Message, payloads))] == expected


def test_a_run_that_is_left_takes_its_messages_off_the_worker(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    start_worker("oleft", pool="solo", config=CONFIG)
    pipeline = trials("oleft", tmp_path, n1={"trial": {"sleeps": (HARD,), "seconds": 600.0}})
    runner = Runner(redis_url)
    left = Thread(target=one_by_one, args=(runner, pipeline, range(HARD + 1)), daemon=True)
    left.start()
    eventually(lambda: f"n1 {HARD}" in diary(tmp_path), "the node that sleeps")
    runner.cancel()
    left.join(20)
    assert not left.is_alive()
    assert len(list(Runner(redis_url).stream(chain("oleft", "Echo"), map(Message, range(5))))) == 5
