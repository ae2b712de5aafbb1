"""The result cache where things go wrong: stored failures, no worker, no Redis, dead letters, a run that goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from celerypipe import ConfigError, NodeFailed, NodeTimeout, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from tests.nodes import remembered
from tests.nodes.remembered import CONFIG
from tests.runs.cached import QUEUE, computed, node, outputs, payloads, pipeline
from tests.runs.traces import report_of
from tests.servers import StartWorker, eventually
from tests.servers.command import begin, celerypipe

FAILURES = {"failures": True}


@pytest.mark.parametrize("warped", [True, False])
def test_a_stored_failure_is_replayed_with_text_and_traceback_and_without_retries(
    shared_worker: StartWorker, redis_url: str, diary: Path, warped: bool
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline(remembered.Picky, diary, warped=warped, cache=FAILURES, on_error="skip")
    assert payloads(Runner(redis_url), pipe, range(6)) == [0, 2, 4]
    runner = Runner(redis_url)
    assert payloads(runner, pipe, range(6)) == [0, 2, 4]
    assert len(computed(diary)) == 6
    one = report_of(runner)["node"]
    assert (one.hits, one.misses, one.failed, one.skipped, one.retried) == (6, 0, {"failed": 3}, 3, 0)
    assert payloads(Runner(redis_url, rerun_failing=True), pipe, range(6)) == [0, 2, 4]
    assert computed(diary)[6:] == ["1", "3", "5"]
    stop = pipeline(remembered.Picky, diary, warped=warped, cache=FAILURES, name="other", retries=2)
    with pytest.raises(NodeFailed, match=r"^other: ValueError: 3 is odd$") as caught:
        outputs(Runner(redis_url), stop, [3])
    assert "in result" in caught.value.remote_traceback
    assert caught.value.node == "other"
    assert len(computed(diary)) == 9


@pytest.mark.parametrize("warped", [True, False])
def test_a_failure_is_not_stored_unless_asked_and_refresh_computes_everything(
    shared_worker: StartWorker, redis_url: str, diary: Path, warped: bool
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline(remembered.Picky, diary, warped=warped, on_error="skip")
    for _ in range(2):
        assert payloads(Runner(redis_url), pipe, range(4)) == [0, 2]
    assert computed(diary) == ["0", "1", "2", "3", "1", "3"]
    assert payloads(Runner(redis_url, refresh=["node"]), pipe, range(4)) == [0, 2]
    assert computed(diary)[6:] == ["0", "1", "2", "3"]
    assert payloads(Runner(redis_url, cache=False), pipe, range(4)) == [0, 2]
    assert len(computed(diary)) == 14


def test_nodes_to_refresh_have_to_be_there(diary: Path) -> None:
    pipe = pipeline(remembered.Square, diary)
    with pytest.raises(ConfigError, match="there is no node 'nod' to refresh; did you mean 'node'"):
        outputs(Runner(refresh=["nod"]), pipe, [])
    plain = Pipeline(name="x", nodes=[NodeDefinition(name="plain", type="proc", mark="passthrough_identity")], links=[])
    with pytest.raises(ConfigError, match="node 'plain' has no cache to refresh"):
        outputs(Runner(refresh=["plain"]), plain, [])


@pytest.mark.parametrize("warped", [True, False])
def test_retries_keep_the_claim_and_a_timeout_is_never_stored(
    shared_worker: StartWorker, redis_url: str, diary: Path, warped: bool
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline(
        remembered.Square, diary, warped=warped, cache=FAILURES, timeout=0.3, configuration={"delay": 20.0}, retries=1
    )
    for count in (2, 4):
        with pytest.raises(NodeTimeout):
            outputs(Runner(redis_url), pipe, [3])
        assert len(computed(diary)) == count


@pytest.mark.parametrize("warped", [True, False])
def test_a_replayed_dead_letter_is_run_again_and_then_remembered(
    shared_worker: StartWorker, redis_url: str, diary: Path, tmp_path: Path, warped: bool
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    options: dict[str, Any] = {"cache": FAILURES, "on_error": "dead_letter", "folder": str(tmp_path / "run")}
    pipe = pipeline(remembered.Picky, diary, warped=warped, **options)
    for _ in range(2):
        assert payloads(Runner(redis_url), pipe, range(3)) == [0, 2]
    letters = [json.loads(path.read_text()) for path in (tmp_path / "run" / "dead_letters").glob("*.json")]
    assert sorted((letter["attempts"], letter.get("note", "")) for letter in letters) == [
        (0, "this failure comes from the result cache; nothing was run"),
        (1, ""),
    ]
    assert len(computed(diary)) == 3
    assert list(Runner(redis_url).stream(pipe, replay=True)) == []
    assert len(computed(diary)) > 3, "the cache does not answer for one that somebody wants to see again"


def test_without_a_worker_it_runs_here_and_is_remembered(redis_url: str, diary: Path) -> None:
    limits = {"queue": "rnobody", "on_no_worker": "local"}
    pipe = pipeline(remembered.Square, diary, warped=True, limits=limits, timeout=30)
    assert payloads(Runner(redis_url), pipe, range(10)) == [n * n for n in range(10)]
    runner = Runner(redis_url)
    assert payloads(runner, pipe, range(10)) == [n * n for n in range(10)]


@pytest.mark.parametrize("warped", [True, False])
def test_without_redis_a_folder_remembers_and_without_both_it_is_said_once(
    diary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warped: bool
) -> None:
    pipe = pipeline(remembered.Square, diary, warped=warped)
    said: list[str] = []
    for _ in range(2):
        assert payloads(Runner(local=True, on_event=said.append), pipe, range(5)) == [n * n for n in range(5)]
    assert len(computed(diary)) == 10
    assert [text for text in said if "CELERYPIPE_CACHE_URL" in text] == said
    assert len(said) == 2
    monkeypatch.setenv("CELERYPIPE_CACHE_URL", (tmp_path / "kept").as_uri())
    for _ in range(2):
        assert payloads(Runner(local=True), pipe, range(5)) == [n * n for n in range(5)]
    assert len(computed(diary)) == 15


def test_batches_are_made_of_what_is_not_known(shared_worker: StartWorker, redis_url: str, diary: Path) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline("tests.nodes.remembered.Together", diary, warped=True, limits={"batch": {"size": 4}})
    assert payloads(Runner(redis_url), pipe, range(0, 20, 2)) == [2 * n for n in range(0, 20, 2)]
    assert payloads(Runner(redis_url), pipe, range(20)) == [2 * n for n in range(20)]
    assert sorted(map(int, computed(diary))) == list(range(20))


def test_inputs_that_are_no_plain_values_are_computed_and_said_once(redis_url: str, diary: Path) -> None:
    said: list[str] = []

    class Strange:
        pass

    pipe = pipeline(remembered.Pid, diary)
    found = payloads(Runner(redis_url, on_event=said.append), pipe, [Strange(), Strange(), 1])
    assert found == [os.getpid()] * 3
    assert sum("some inputs cannot be looked up" in text for text in said) == 1


def test_a_run_that_was_killed_goes_on_and_computes_what_is_left(redis_url: str, diary: Path, tmp_path: Path) -> None:
    out, gate = tmp_path / "out.jsonl", tmp_path / "gate"
    nodes: list[dict[str, Any]] = [
        {"name": "src", "type": "source", "mark": "data_streamer", "configuration": {"count": 40, "rate": 0}},
        {**node(remembered.Square, diary, "square").model_dump(by_alias=True, exclude_unset=True)},
        {
            "name": "halt",
            "type": "proc",
            "mark": "tests.nodes.remembered.Computing",
            "configuration": {"diary": str(tmp_path / "halts"), "delay": 0.02},
        },
        {"name": "file", "type": "sink", "mark": "json_lines", "configuration": {"path": str(out)}},
    ]
    links = [{"from": a, "to": b} for a, b in (("src", "square"), ("square", "halt"), ("halt", "file"))]
    body = {"name": "resumed", "folder": str(tmp_path / "run"), "nodes": nodes, "links": links}
    path = tmp_path / "pipeline.json"
    path.write_text(json.dumps({"version": "1", "pipeline": body}))
    command: list[Any] = ["run", path, "--redis", redis_url]
    doomed = begin(*command, cwd=tmp_path, CELERYPIPE_ALLOW=str(tmp_path))
    eventually(lambda: out.exists() and out.read_text().count("\n") > 3, "four lines")
    doomed.kill()
    gate.touch()
    assert celerypipe(*command, cwd=tmp_path, CELERYPIPE_ALLOW=str(tmp_path)).returncode == 0
    assert len(set(computed(diary))) == 40
    assert len(computed(diary)) <= 41, "at most the one that was at work when it died"
