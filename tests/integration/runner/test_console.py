"""What nodes print comes to the runner: from workers of every pool, from a chain, from nodes that run here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from celerypipe import DefinitionError, NodeError, NodeFailed, NodeTimeout, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from tests.nodes import here, printing
from tests.nodes.printing import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import results
from tests.servers import FEW_POOLS, StartWorker
from tests.servers.command import celerypipe


def lines_of(folder: Path, node: str = "there") -> list[dict[str, Any]]:
    """The lines in the order of the messages: one that is held up is overtaken by those behind it."""
    lines = [json.loads(line) for line in (folder / node / "console.jsonl").read_text().splitlines()]
    return sorted(lines, key=lambda line: int(line["sequence"]))


def text_of(console: dict[str, Any], stream: str = "stdout") -> str:
    return "".join(text for _, kind, text in console["lines"] if kind == stream)


@pytest.mark.parametrize(("pool", "slots"), FEW_POOLS)
def test_every_pool_brings_what_was_printed_for_each_message(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, pool: str, slots: int
) -> None:
    worker = shared_worker(f"p{pool}", pool=pool, concurrency=slots, config=CONFIG)
    pipeline = warped("tests.nodes.printing.Talk", f"p{pool}", console=True, folder=str(tmp_path))
    assert results(Runner(redis_url), pipeline, ["one", "two", "three"]) == ["one", "two", "three"]
    found = lines_of(tmp_path)
    assert [text_of(each) for each in found] == [
        f"print {word}\nwrite {word}\nhalf a line {word}" for word in ("one", "two", "three")
    ]
    for word, each in zip(("one", "two", "three"), found, strict=True):
        errors = text_of(each, "stderr")
        assert errors.count(f"error {word}") == 1
        assert errors.count(f"logged {word}") == 1
        assert f"UserWarning: warned {word}" in errors
        assert each["outcome"] == "done"
        assert each["started"] <= each["ended"] == each["started"] + each["seconds"]
        assert ", process " in each["worker"]
        assert str(os.getpid()) not in each["worker"]
    assert "write two" in worker.text()  # it is passed on as ever


def test_a_node_that_was_not_asked_keeps_nothing(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("psolo", pool="solo", concurrency=1, config=CONFIG)
    results(Runner(redis_url), warped("tests.nodes.printing.Talk", "psolo", folder=str(tmp_path)), ["one"])
    assert not (tmp_path / "there" / "console.jsonl").exists()


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 2)])
def test_failures_and_timeouts_bring_what_was_printed_until_then(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, pool: str, slots: int
) -> None:
    shared_worker(f"p{pool}", pool=pool, concurrency=slots, config=CONFIG)
    options: dict[str, Any] = {"console": True, "on_error": "skip", "timeout": 2.5, "folder": str(tmp_path)}
    runner = Runner(redis_url)
    pipeline = warped("tests.nodes.printing.Moody", f"p{pool}", limits={"window": 1}, **options)
    assert results(runner, pipeline, ["fine", "raise", "hang", "well"]) == ["fine", "well"]
    assert [(each["outcome"], text_of(each)) for each in lines_of(tmp_path)] == [
        ("done", "before fine\n"),
        ("failed", "before raise\n"),
        ("timeout", "before hang\n"),
        ("done", "before well\n"),
    ]


def test_the_error_that_ends_a_run_has_the_console(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("psolo", pool="solo", concurrency=1, config=CONFIG)
    with pytest.raises(NodeFailed, match="no good") as caught:
        results(Runner(redis_url), warped("tests.nodes.printing.Moody", "psolo", console=True), ["raise"])
    assert caught.value.console.text == "before raise\n"
    assert caught.value.console.worker == caught.value.worker


def test_two_messages_at_a_time_do_not_mix(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("pthreads", pool="threads", concurrency=2, config=CONFIG)
    pipeline = warped("tests.nodes.printing.Chat", "pthreads", console=True, folder=str(tmp_path))
    results(Runner(redis_url), pipeline, list(range(12)))
    assert sorted(text_of(each) for each in lines_of(tmp_path)) == sorted(
        f"{number}.0\n{number}.1\n{number}.2\n" for number in range(12)
    )


def test_each_node_of_a_chain_has_its_own(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("psolo", pool="solo", concurrency=1, config=CONFIG)
    nodes = [
        NodeDefinition(
            name=name,
            mark=printing.Doubled,
            warped=True,
            warp_configuration={"queue": "psolo"},
            console=name != "second",
        )
        for name in ("first", "second", "third")
    ]
    links = [("first", "second"), ("second", "third")]
    pipeline = Pipeline(name="chain", nodes=nodes, links=links, folder=str(tmp_path))
    assert results(Runner(redis_url), pipeline, list(range(100))) == [8 * number for number in range(100)]
    assert [text_of(each) for each in lines_of(tmp_path, "first")] == [f"doubling {n}\n" for n in range(100)]
    assert [text_of(each) for each in lines_of(tmp_path, "third")] == [f"doubling {4 * n}\n" for n in range(100)]
    assert not (tmp_path / "second" / "console.jsonl").exists()


def test_the_first_message_of_a_batch_has_what_was_printed_for_it(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("psolo", pool="solo", concurrency=1, config=CONFIG)
    limits = {"batch": {"size": 4, "wait": 0.2}}
    pipeline = warped("tests.nodes.printing.TalkTogether", "psolo", console=True, limits=limits, folder=str(tmp_path))
    results(Runner(redis_url), pipeline, list(range(10)))
    found = [text_of(each) for each in lines_of(tmp_path)]
    sizes = [int(text.split()[1]) for text in found]
    assert sum(sizes) == 10
    assert max(sizes) > 1


def test_of_a_long_one_both_ends_come(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("psolo", pool="solo", concurrency=1, config=CONFIG)
    results(
        Runner(redis_url), warped("tests.nodes.printing.Moody", "psolo", console=True, folder=str(tmp_path)), [50_000]
    )
    (found,) = lines_of(tmp_path)
    text = text_of(found)
    assert text.startswith("before 50000\nline 000000\n")
    assert text.endswith("line 049999\n")
    assert found["cut"] > 500_000
    assert len(text) < 100_000


def test_it_is_shown_once_where_there_is_no_folder(
    shared_worker: StartWorker, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    shared_worker("psolo", pool="solo", concurrency=1, config=CONFIG)
    results(Runner(redis_url), warped("tests.nodes.printing.Doubled", "psolo", console=True), [7])
    (record,) = [each for each in caplog.records if each.name == "celerypipe.node.there"]
    assert record.getMessage() == "doubling 7"
    assert (record.run, record.node) == (record.line.run, "there")  # type: ignore[attr-defined]


@pytest.mark.parametrize("is_warped", [True, False])
def test_nodes_that_run_here_have_consoles_too(tmp_path: Path, is_warped: bool) -> None:
    node = NodeDefinition(
        name="there",
        mark=printing.Moody,
        warped=is_warped,
        console=True,
        timeout=0.3,
        on_error="skip",
        warp_configuration={"queue": "nowhere"},
    )
    pipeline = Pipeline(name="test", nodes=[node], links=[], folder=str(tmp_path))
    assert results(Runner(local=True), pipeline, ["fine", "raise", "hang"]) == ["fine"]
    assert [(each["outcome"], text_of(each)) for each in lines_of(tmp_path)] == [
        ("done", "before fine\n"),
        ("failed", "before raise\n"),
        ("timeout", "before hang\n"),
    ]
    assert all(str(os.getpid()) in each["worker"] for each in lines_of(tmp_path))


def test_an_error_here_has_the_console_too() -> None:
    pipeline = warped("tests.nodes.printing.Moody", "nowhere", console=True, timeout=0.2)
    for payload, kind in (("raise", NodeFailed), ("hang", NodeTimeout)):
        with pytest.raises(kind) as caught:
            results(Runner(local=True), pipeline, [payload])
        assert isinstance(caught.value, NodeError)
        assert caught.value.console.text == f"before {payload}\n"


def test_a_function_asks_for_it_where_it_is_made() -> None:
    node = NodeDefinition(name="loud", mark=printing.loud, warped=True)
    assert node.console
    assert not NodeDefinition(name="loud", mark=printing.loud, warped=True, console=False).console


def test_a_source_has_no_console() -> None:
    with pytest.raises(DefinitionError, match=r"nodes\['numbers'\]\.console: a source has no messages to print for"):
        NodeDefinition(name="numbers", mark=here.Numbers, console=True)


def test_the_command_line_shows_what_is_printed_elsewhere(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("psolo", pool="solo", concurrency=1, config=CONFIG)
    far = {"warped": True, "warp_configuration": {"queue": "psolo"}}
    nodes = [
        {"name": "numbers", "type": "source", "mark": "data_streamer", "configuration": {"count": 2, "rate": 0}},
        {"name": "far", "type": "proc", "mark": "tests.nodes.printing.Doubled", "console": True, **far},
        {"name": "near", "type": "proc", "mark": "tests.nodes.printing.Doubled", "console": True},
    ]
    links = [{"from": "numbers", "to": "far"}, {"from": "far", "to": "near"}]
    file = tmp_path / "pipeline.json"
    file.write_text(
        json.dumps({"version": "1.0", "pipeline": {"name": "p", "id": "p", "nodes": nodes, "links": links}})
    )
    done = celerypipe("run", file, "--redis", redis_url)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("far │ doubling") == 2
    assert "near │" not in done.stderr  # it printed itself
    assert done.stdout.count("doubling") == 2
    said = celerypipe("run", file, "--redis", redis_url, "--log-format", "json", "--json")
    lines = [json.loads(line) for line in said.stderr.splitlines() if "doubling" in line and line.startswith("{")]
    assert {(each["run"], each["node"]) for each in lines} == {(json.loads(said.stdout)["run"], "far")}
    assert len({each["message"] for each in lines}) == 2
