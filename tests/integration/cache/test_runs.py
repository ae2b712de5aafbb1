"""The result cache in whole runs: what was computed once is not computed again, here and on real workers."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import Message, Pipeline, RunCancelled, Runner
from celerypipe.definition.pipeline import NodeDefinition
from tests.nodes import remembered
from tests.nodes.here import Numbers
from tests.nodes.remembered import CONFIG
from tests.runs.cached import QUEUE, computed, content, node, outputs, payloads, pipeline
from tests.runs.reading import Reading
from tests.runs.traces import report_of
from tests.servers import StartWorker, eventually


@pytest.mark.parametrize("mark", [remembered.Square, remembered.Several, remembered.Frames])
@pytest.mark.parametrize("warped", [True, False])
def test_a_second_run_computes_nothing_and_gives_the_same_bytes(
    shared_worker: StartWorker, redis_url: str, diary: Path, mark: type, warped: bool
) -> None:
    worker = shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline(mark, diary, warped=warped)
    first, second = ([Message(n, {"path": f"{letter}/{n}", "n": n}) for n in range(40)] for letter in "ab")
    outputs(Runner(redis_url), pipe, first)
    assert len(computed(diary)) == 40
    tasks = len(re.findall(r"Task \S+ received", worker.text()))
    runner = Runner(redis_url)
    again = outputs(runner, pipe, second)
    assert len(computed(diary)) == 40, "nothing was computed"
    assert len(re.findall(r"Task \S+ received", worker.text())) == tasks, "no task was sent"
    assert content(again) == content(outputs(Runner(redis_url, cache=False), pipe, second)), "paths of its own, too"
    assert len(computed(diary)) == 80
    one = report_of(runner)["node"]
    assert (one.hits, one.misses, one.hit_rate, one.running) == (40, 0, 1.0, None)
    assert one.bytes_saved > 0
    assert one.seconds_saved > 0


def test_one_element_of_a_large_configuration_makes_another_instance_and_another_question(
    shared_worker: StartWorker, redis_url: str, diary: Path
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    zeros, seven = np.zeros(2000), np.zeros(2000)
    seven[1000] = 7
    for cache, times in ((True, 2), (False, 1)):  # what is kept is right, and so is what is computed
        for name, weights in [("zeros", zeros), ("seven", seven)] * times:
            options = {"warped": True, "cache": cache, "name": name, "configuration": {"weights": weights}}
            found = payloads(Runner(redis_url), pipeline(remembered.Weighted, diary, **options), [1])
            assert found == [(name, weights.sum())]
    assert len(computed(diary)) == 4
    nodes = [node(remembered.Weighted, diary, name, warped=True, configuration={"weights": [3]}) for name in "ab"]
    one_run = Pipeline(name="equal nodes", nodes=nodes, links=[])
    assert sorted(payloads(Runner(redis_url, cache=False), one_run, [1])) == [("a", 3), ("b", 3)], "each by its name"


def test_nodes_with_and_without_a_cache_mix(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    diaries = [tmp_path / name for name in ("here", "there", "plain")]
    out = tmp_path / "out.jsonl"
    nodes = [
        NodeDefinition(name="numbers", mark=Numbers, configuration={"count": 200}),
        node(remembered.Square, diaries[0], "here"),
        node(remembered.Square, diaries[1], "there", warped=True),
        NodeDefinition(
            name="plain",
            type="proc",
            mark="tests.nodes.remembered.Together",
            configuration={"diary": str(diaries[2])},
            warped=True,
            warp_configuration={"queue": QUEUE, "batch": {"size": 8}},
        ),
        node("tests.nodes.remembered.Frames", tmp_path / "frames", "frames", warped=True, sync="key:number"),
        NodeDefinition(name="file", type="sink", mark="json_lines", configuration={"path": str(out)}),
    ]
    nodes[4] = node(remembered.Square, tmp_path / "last", "last", warped=True)
    links = [("numbers", "here"), ("numbers", "there"), ("here", "plain"), ("plain", "last"), ("last", "file")]
    pipe = Pipeline(name="mixed", nodes=nodes, links=[*links, ("there", "file")])
    runs = []
    for _ in range(2):
        report = Runner(redis_url).run(pipe)
        runs.append((report, sorted(out.read_text().splitlines())))
    assert runs[0][1] == runs[1][1]
    assert [runs[1][0][name].hits for name in ("here", "there", "plain", "last")] == [200, 200, 0, 200]
    assert [len(computed(diary)) for diary in diaries] == [200, 200, 400]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("warped", [True, False])
def test_hits_and_misses_leave_in_order(
    shared_worker: StartWorker, redis_url: str, diary: Path, warped: bool, ordered: bool
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    limits = {"ordered": ordered, "window": 16}
    pipe = (
        pipeline(remembered.Several, diary, warped=warped, limits=limits)
        if warped
        else pipeline(remembered.Several, diary)
    )
    inputs = [n * n % 11 % 7 for n in range(600)]
    outputs(Runner(redis_url), pipe, [0, 2, 4])
    found = payloads(Runner(redis_url), pipe, inputs)
    expected = [(n, copy) for n in inputs for copy in range(n)]
    assert found == expected if ordered or not warped else Counter(found) == Counter(expected)
    assert Counter(computed(diary)) == Counter(map(str, {0, 2, 4, *inputs})), "each number once, however often it came"


def test_two_runners_compute_each_result_once(shared_worker: StartWorker, redis_url: str, diary: Path) -> None:
    shared_worker("remembered2", pool="prefork", concurrency=2, config=CONFIG)
    pipe = pipeline(
        remembered.Square, diary, warped=True, limits={"queue": "remembered2"}, configuration={"delay": 0.005}
    )
    forward, backward = list(range(60)), list(reversed(range(60)))
    others: list[Any] = []
    other = threading.Thread(target=lambda: others.extend(payloads(Runner(redis_url), pipe, backward)))
    other.start()
    assert payloads(Runner(redis_url), pipe, forward) == [n * n for n in forward]
    other.join(30)
    assert others == [n * n for n in backward]
    assert Counter(computed(diary)) == Counter(map(str, range(60)))


def test_two_runners_with_local_nodes_wait_for_each_other_and_never_for_ever(redis_url: str, diary: Path) -> None:
    pipe = pipeline(remembered.Square, diary, configuration={"delay": 0.002})
    found: dict[int, list[Any]] = {}
    inputs = {number: [n * (2 * number + 3) % 80 for n in range(80)] for number in (0, 2, 3)}

    def run(number: int) -> None:
        found[number] = payloads(Runner(redis_url), pipe, inputs[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert found == {number: [n * n for n in given] for number, given in inputs.items()}
    assert Counter(computed(diary)) == Counter(map(str, range(80)))


def test_where_nothing_may_be_added_what_is_there_is_used(
    redis_url: str, diary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = pipeline(remembered.Square, diary)
    assert payloads(Runner(redis_url), pipe, [1]) == [1]
    with monkeypatch.context() as machine:
        machine.setenv("CELERYPIPE_CACHE", "read-only")
        for _ in range(2):
            assert payloads(Runner(redis_url), pipe, [1, 2]) == [1, 4]
    assert computed(diary) == ["1", "2", "2"]
    assert payloads(Runner(redis_url), pipe, [2]) == [4]
    assert computed(diary) == ["1", "2", "2", "2"]


def test_with_a_declared_version_no_worker_is_needed(start_worker: StartWorker, redis_url: str, diary: Path) -> None:
    worker = start_worker("rdeclared", pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline("tests.nodes.remembered.Declared", diary, warped=True, limits={"queue": "rdeclared"})
    assert payloads(Runner(redis_url), pipe, range(20)) == [n * n for n in range(20)]
    worker.stop()
    assert payloads(Runner(redis_url), pipe, range(20)) == [n * n for n in range(20)]
    assert len(computed(diary)) == 20


PAINTS = 'imports = ["paints"]\n'
NODE = """
from celerypipe import Message, Proc

class Paint(Proc):
    def __init__(self, diary: str) -> None:
        self.diary = diary

    def update(self, message: Message) -> Message:
        with open(self.diary, "a") as file:
            file.write("{color}\\n")
        return message.with_payload((message.payload, "{color}"))
"""


def painter(workplace: Any, start_worker: StartWorker, queue: str, color: str) -> Any:
    """A worker that starts after its node was edited."""
    workplace.module("paints", NODE.format(color=color))
    return start_worker(queue, pool="solo", concurrency=1, config=PAINTS, cwd=workplace.folder)


def test_an_edited_node_is_never_answered_for_by_its_older_self(
    start_worker: StartWorker, redis_url: str, diary: Path, workplace: Any
) -> None:
    """A worker with edited code starts while the old one still runs: then nothing is looked up, and nothing kept."""

    worker = partial(painter, workplace, start_worker, "rpaint")
    pipe = pipeline("paints.Paint", diary, warped=True, limits={"queue": "rpaint", "linger": 0.05})
    red = worker("red")
    assert payloads(Runner(redis_url), pipe, range(5)) == [(n, "red") for n in range(5)]
    blue = worker("blue")
    said: list[str] = []
    runner = Runner(redis_url, on_event=said.append)
    mixed = payloads(runner, pipe, range(10))
    assert len(mixed) == 10
    assert report_of(runner)["node"].hits == 0
    assert sum("its workers run different code" in text for text in said) == 1, said
    red.stop()
    runner = Runner(redis_url)
    assert payloads(runner, pipe, range(10)) == [(n, "blue") for n in range(10)]
    assert report_of(runner)["node"].misses == 10, "nothing of the mixed run was kept"
    blue.stop()
    red = worker("red")
    runner = Runner(redis_url)
    assert payloads(runner, pipe, range(10)) == [(n, "red") for n in range(10)]
    assert report_of(runner)["node"].hits == 5, "what red had computed is there again"


def test_code_that_changes_during_a_run_is_not_kept_as_the_code_of_before(
    start_worker: StartWorker, redis_url: str, diary: Path, workplace: Any
) -> None:
    worker = partial(painter, workplace, start_worker, "rpaint2")
    pipe = pipeline("paints.Paint", diary, warped=True, limits={"queue": "rpaint2", "linger": 0.05})
    red = worker("red")
    gate = threading.Event()

    def inputs() -> Iterable[Message]:
        yield from map(Message, range(5))
        gate.wait(30)
        yield from map(Message, range(5, 10))

    reading = Reading(Runner(redis_url).stream(pipe, inputs()))
    reading.wait_for(5)
    red.stop()
    worker("blue").wait_for_presence()
    gate.set()
    assert reading.payloads() == [(n, "red" if n < 5 else "blue") for n in range(10)]
    runner = Runner(redis_url)
    found = payloads(runner, pipe, range(10))
    assert found == [(n, "blue") for n in range(10)], "nothing that red made counts now"


def test_a_worker_that_is_killed_holds_nobody_up(start_doomed: StartWorker, redis_url: str, diary: Path) -> None:
    gate = diary.with_name("gate")
    worker = start_doomed("rkilled", pool="solo", concurrency=1, config=CONFIG)
    configuration = {"gate": str(gate)}
    pipe = pipeline(
        remembered.Pid, diary, warped=True, limits={"queue": "rkilled"}, configuration=configuration, retries=3
    )
    reading = Reading(Runner(redis_url).stream(pipe, map(Message, range(8))))
    eventually(lambda: computed(diary), "the first message at work")
    worker.kill()
    gate.touch()
    other = start_doomed("rkilled", pool="solo", concurrency=1, config=CONFIG)
    assert reading.payloads() == [other.process.pid] * 8
    runner = Runner(redis_url)
    assert payloads(runner, pipe, range(8)) == [other.process.pid] * 8
    assert report_of(runner)["node"].hits == 8


@pytest.mark.parametrize("warped", [True, False])
def test_a_cancelled_run_lets_others_compute_what_it_had_begun(
    shared_worker: StartWorker, redis_url: str, diary: Path, warped: bool
) -> None:
    shared_worker("remembered2", pool="prefork", concurrency=2, config=CONFIG)
    gate = diary.with_name("gate")
    options = {"limits": {"queue": "remembered2"}} if warped else {}
    pipe = pipeline(remembered.Square, diary, warped=warped, configuration={"gate": str(gate)}, **options)
    first = Runner(redis_url)
    reading = Reading(first.stream(pipe, map(Message, range(8))))
    eventually(lambda: computed(diary), "the first message at work")
    second = Reading(Runner(redis_url).stream(pipe, map(Message, range(8))))
    first.cancel()
    with pytest.raises(RunCancelled):
        reading.payloads()
    gate.touch()
    assert second.payloads() == [n * n for n in range(8)]
