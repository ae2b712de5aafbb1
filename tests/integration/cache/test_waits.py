"""The result cache beside what else a run does: time, circuits, joins, folders, budgets, a Redis that goes away."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import CircuitOpen, Message, NodeFailed, NodeTimeout, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from tests.nodes import remembered
from tests.nodes.here import Numbers, Trap
from tests.nodes.remembered import CONFIG
from tests.runs.cached import QUEUE, UNSEEN, computed, node, payloads, pipeline
from tests.runs.reading import Reading
from tests.runs.traces import report_of
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.command import begin
from tests.servers.extent import at_length
from tests.servers.redis import TunedRedis


@pytest.mark.parametrize("warped", [True, False])
def test_no_time_runs_while_another_run_computes_it(
    shared_worker: StartWorker, redis_url: str, diary: Path, warped: bool
) -> None:
    shared_worker("remembered2", pool="prefork", concurrency=2, config=CONFIG)
    gate = diary.with_name("gate")
    options: dict[str, Any] = {"configuration": {"gate": str(gate)}, "warped": warped}
    options |= {"limits": {"queue": "remembered2"}} if warped else {}
    patient, hasty = (
        pipeline(remembered.Square, diary, **options),
        pipeline(remembered.Square, diary, timeout=0.5, **options),
    )
    first = Reading(Runner(redis_url).stream(patient, map(Message, range(3))))
    eventually(lambda: computed(diary), "the first message at work")
    second = Reading(Runner(redis_url).stream(hasty, map(Message, range(1))))
    threading.Event().wait(1.0)  # twice as long as it has: that this passes is what is tested
    assert second.is_alive()
    assert second.error is None
    gate.touch()
    assert (first.payloads(), second.payloads()) == ([0, 1, 4], [0])
    assert len(computed(diary)) == 3


def test_what_is_known_comes_through_an_open_circuit(start_worker: StartWorker, redis_url: str, diary: Path) -> None:
    worker = start_worker("rcircuit", pool="solo", concurrency=1, config=CONFIG)
    options: dict[str, Any] = {"warped": True, "limits": {"queue": "rcircuit"}, "on_error": "skip"}
    payloads(Runner(redis_url), pipeline("tests.nodes.remembered.Declared", diary, **options), range(100, 110))
    worker.stop()
    hasty = pipeline("tests.nodes.remembered.Declared", diary, timeout=0.2, **options)
    runner = Runner(redis_url)
    found = payloads(runner, hasty, [*range(8), *range(100, 110), *range(8, 16), *range(100, 110)])
    assert found == 2 * [n * n for n in range(100, 110)]
    one = report_of(runner)["node"]
    assert set(one.failed) <= {NodeTimeout.kind, CircuitOpen.kind, "no_worker"}
    assert (one.hits, one.misses, one.skipped) == (20, 16, 16)
    assert len(computed(diary)) == 10


@pytest.mark.parametrize("warped", [True, False])
def test_what_a_join_puts_together_is_known_again(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, warped: bool
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    diaries = [tmp_path / name for name in ("left", "right", "both")]
    out = tmp_path / "out.jsonl"
    nodes = [
        NodeDefinition(name="numbers", mark=Numbers, configuration={"count": 30}),
        node(remembered.Square, diaries[0], "left"),
        node(remembered.Square, diaries[1], "right"),
        node("tests.nodes.remembered.Count", diaries[2], "both", sync="key:number", warped=warped),
        NodeDefinition(name="file", type="sink", mark="json_lines", configuration={"path": str(out)}),
    ]
    links = [("numbers", "left"), ("numbers", "right"), ("left", "both"), ("right", "both"), ("both", "file")]
    pipe = Pipeline(name="joined", nodes=nodes, links=links)
    written = []
    for _ in range(2):
        report = Runner(redis_url).run(pipe)
        written.append(out.read_text())
    assert written[0] == written[1] == 30 * "2\n"
    assert (report["both"].received, report["both"].hits, report["both"].misses) == (60, 30, 0)


def test_a_class_that_is_not_here_is_asked_for_by_what_its_worker_told(
    start_worker: StartWorker, redis_url: str, diary: Path, workplace: Any
) -> None:
    workplace.module("unseen_here", UNSEEN)
    config = 'imports = ["unseen_here"]\n'
    worker = start_worker("runseen", pool="solo", concurrency=1, config=config, cwd=workplace.folder)
    pipe = pipeline("unseen_here.Far", diary, warped=True, limits={"queue": "runseen"})
    assert payloads(Runner(redis_url), pipe, range(5)) == [0, 3, 6, 9, 12]
    worker.stop()
    given = pipeline("unseen_here.Far", diary, warped=True, limits={"queue": "runseen"}, configuration={"times": 3})
    assert payloads(Runner(redis_url), given, range(5)) == [0, 3, 6, 9, 12], "a default that is given is the same"
    assert len(computed(diary)) == 5


def test_telemetry_and_dumps_see_hits_as_they_see_results(
    shared_worker: StartWorker, redis_url: str, diary: Path, tmp_path: Path
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    for number in range(2):
        folder = tmp_path / f"run{number}"
        one = node(remembered.Square, diary, warped=True, auto_dump=True)
        pipe = Pipeline(name="t", nodes=[one], links=[], folder=str(folder), telemetry="telemetry.csv")
        assert payloads(Runner(redis_url), pipe, range(20)) == [n * n for n in range(20)]
    lines = [len((tmp_path / f"run{number}" / "telemetry.csv").read_text().splitlines()) for number in range(2)]
    assert lines[0] == lines[1] > 20
    assert len(list((tmp_path / "run1" / "node").rglob("*.*"))) == len(list((tmp_path / "run0" / "node").rglob("*.*")))
    assert len(computed(diary)) == 20


def test_a_byte_budget_holds_for_what_is_not_known(shared_worker: StartWorker, redis_url: str, diary: Path) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline("tests.nodes.remembered.Sum", diary, warped=True)
    frames = [Message(np.full(300_000, number, np.uint8)) for number in range(20)]
    for _ in range(2):
        runner = Runner(redis_url, byte_budget=700_000)
        assert payloads(runner, pipe, frames) == [300_000 * number for number in range(20)]
    assert (report_of(runner)["node"].hits, len(computed(diary))) == (20, 20)


@at_length
@pytest.mark.parametrize("warped", [True, False])
def test_a_redis_that_goes_and_comes_back_costs_results_but_no_message(
    start_worker: StartWorker, durable_redis: TunedRedis, diary: Path, warped: bool
) -> None:
    if warped:
        start_worker("raway", url=durable_redis.url, pool="solo", concurrency=1, config=CONFIG)
    options: dict[str, Any] = {"limits": {"queue": "raway"}} if warped else {}
    pipe = pipeline(remembered.Square, diary, warped=warped, configuration={"delay": 0.005}, **options)
    said: list[str] = []
    reading = Reading(Runner(durable_redis.url, on_event=said.append).stream(pipe, map(Message, range(400))))
    reading.wait_for(50)
    durable_redis.stop()
    threading.Event().wait(1.5)
    durable_redis.start()
    assert reading.payloads() == [n * n for n in range(400)]
    assert sum("the result cache rests" in text for text in said) <= 1
    runner = Runner(durable_redis.url)
    assert payloads(runner, pipe, range(400)) == [n * n for n in range(400)]
    assert report_of(runner)["node"].hits > 50


def test_a_flushed_redis_loses_results_and_no_message(
    start_worker: StartWorker, private_redis: RedisServer, diary: Path
) -> None:
    start_worker("rflush", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline(remembered.Square, diary, warped=True, limits={"queue": "rflush"}, configuration={"delay": 0.005})
    reading = Reading(Runner(private_redis.url).stream(pipe, map(Message, range(300))))
    reading.wait_for(50)
    private_redis.flush()
    assert reading.payloads() == [n * n for n in range(300)]
    runner = Runner(private_redis.url)
    assert payloads(runner, pipe, range(300)) == [n * n for n in range(300)]
    assert report_of(runner)["node"].hits > 100


@pytest.mark.parametrize("warped", [True, False])
def test_a_failed_run_goes_on_and_each_result_arrives_once(
    shared_worker: StartWorker, redis_url: str, diary: Path, tmp_path: Path, warped: bool
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    gate, out = tmp_path / "gate", tmp_path / "out.jsonl"
    trap = {"at": 400, "gate": str(gate), "out": str(out), "after": 20}
    nodes = [
        NodeDefinition(name="numbers", type="source", mark="data_streamer", configuration={"count": 60, "rate": 0}),
        node(remembered.Square, diary, "square", warped=warped),
        NodeDefinition(name="trap", type="proc", mark=Trap, configuration=trap),
        NodeDefinition(name="file", type="sink", mark="json_lines", configuration={"path": str(out)}),
    ]
    links = [("numbers", "square"), ("square", "trap"), ("trap", "file")]
    pipe = Pipeline(name="story", folder=str(tmp_path / "kept"), nodes=nodes, links=links)
    with pytest.raises(NodeFailed, match="fell into the trap") as caught:
        Runner(redis_url).run(pipe)
    gate.touch()
    report = Runner(redis_url).run(pipe, resume=caught.value.report.run)
    assert report["square"].hits + report["square"].misses == report["square"].received < 60
    assert report["square"].hits > 0
    assert sorted(map(int, out.read_text().split())) == [n * n for n in range(60)]
    assert len(set(computed(diary))) == 60, "some twice: what came back after the run had failed is not kept"


def test_a_runner_that_is_killed_leaves_its_claims_to_others(
    shared_worker: StartWorker, redis_url: str, diary: Path, tmp_path: Path
) -> None:
    shared_worker("remembered2", pool="prefork", concurrency=2, config=CONFIG)
    gate = tmp_path / "gate"
    options: dict[str, Any] = {"limits": {"queue": "remembered2", "parallel": 1}, "configuration": {"gate": str(gate)}}
    one = node(remembered.Square, diary, warped=True, **options)
    numbers = NodeDefinition(name="src", type="source", mark="data_streamer", configuration={"count": 6, "rate": 0})
    pipe = Pipeline(name="killed", nodes=[numbers, one], links=[("src", "node")])
    path = tmp_path / "killed.json"
    path.write_text(json.dumps(pipe.to_dict()))
    doomed = begin("run", path, "--redis", redis_url, "--quiet")
    eventually(lambda: computed(diary), "the first message at work")
    waiting = Reading(Runner(redis_url).stream(Pipeline(name="w", nodes=[one], links=[]), map(Message, range(6))))
    doomed.kill()
    eventually(lambda: len(computed(diary)) > 1, "another one computes")
    gate.touch()
    assert waiting.payloads() == [n * n for n in range(6)]
