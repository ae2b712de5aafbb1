"""Workers with other code of a node than lies beside the runner, or than each other: it is said, and by whom."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celerypipe import Message, Runner
from tests.runs.pipelines import warped
from tests.runs.reading import Reading, results
from tests.servers import RunningWorker, StartWorker, Workplace, eventually
from tests.servers.command import celerypipe

NODES = """
from celerypipe import node

@node
def change(text: str) -> str:
    return text.upper()

@node
def other(text: str) -> str:
    return text
"""
CONFIG = 'imports = ["changing.words"]\nworker_pool = "solo"\n'
MARK = "changing.words.change"


@pytest.fixture
def worker(start_worker: StartWorker, workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> RunningWorker:
    """A worker whose code lies beside the runner, too."""
    workplace.module("changing.words", NODES)
    monkeypatch.syspath_prepend(str(workplace.folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == "changing"]:
        del sys.modules[name]
    return start_worker("changing", cwd=workplace.folder, config=CONFIG)


def named(worker: RunningWorker) -> str:
    return f"the worker on {worker.presence['host']} (pid {worker.presence['pid']})"


def test_a_worker_that_was_started_before_an_edit_is_named(
    worker: RunningWorker, workplace: Workplace, redis_url: str, tmp_path: Path
) -> None:
    said: list[str] = []
    runner = Runner(redis_url, on_event=said.append)
    assert results(runner, warped(MARK, "changing"), ["a"]) == ["A"]
    assert said == []

    workplace.module("changing.words", NODES.replace("upper", "lower"))
    assert results(runner, warped(MARK, "changing"), ["a"]) == ["A"]
    (text,) = said
    assert text == (
        f"node 'there': {named(worker)} has other code of {MARK} than this machine: it was started before an edit, or "
        "with another project; to fix it: restart it with this code, or give each project a CELERYPIPE_NAMESPACE of "
        "its own"
    )
    said.clear()
    assert results(runner, warped("changing.words.other", "changing"), ["a"]) == ["a"]
    assert said == [], "what was edited is another node of that file"

    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps(warped(MARK, "changing", timeout=5).to_dict()))
    checked = celerypipe("check", file, "--live", "--redis", redis_url, "--json", PYTHONPATH=f"{workplace.folder}:.")
    found = [each for each in json.loads(checked.stdout)["findings"] if each["check"] == "code"]
    assert [(each["severity"], each["place"]) for each in found] == [("warning", "node 'there'")]


def test_a_worker_that_comes_with_other_code_while_a_run_goes_on_is_named(
    worker: RunningWorker, start_worker: StartWorker, workplace: Workplace, redis_url: str
) -> None:
    said: list[str] = []
    gate = workplace.folder / "open"

    def until_it_comes() -> Iterator[Message]:
        yield Message("a")
        while not gate.exists():
            yield Message("a")

    runner = Runner(redis_url, on_event=said.append)
    reading = Reading(runner.stream(warped(MARK, "changing", limits={"window": 1}), until_it_comes()))
    reading.wait_for(1)
    elsewhere = Workplace(workplace.folder / "elsewhere")
    elsewhere.module("changing.words", NODES.replace("upper", "title"))
    late = start_worker("changing", cwd=elsewhere.folder, config=CONFIG)
    try:
        eventually(lambda: [each for each in said if "other code" in each], "what is said of it")
    finally:
        gate.touch()
    reading.payloads()
    (text,) = [each for each in said if "other code" in each]
    assert f"{named(late)} has other code of {MARK}" in text


def test_where_the_source_is_not_here_workers_that_differ_are_named(
    start_worker: StartWorker, workplace: Workplace, redis_url: str
) -> None:
    here, there = Workplace(workplace.folder / "a"), Workplace(workplace.folder / "b")
    workers = []
    for place, text in ((here, NODES), (there, NODES.replace("upper", "lower"))):
        place.module("differing.words", text)
        config = CONFIG.replace("changing", "differing")
        workers.append(start_worker("differing", cwd=place.folder, config=config))
    said: list[str] = []
    results(Runner(redis_url, on_event=said.append), warped("differing.words.change", "differing"), ["a"])
    (text,) = said
    assert "the workers of queue 'differing' have different code of differing.words.change: " in text
    assert all(named(each) in text for each in workers)
    said.clear()
    results(Runner(redis_url, on_event=said.append), warped("differing.words.other", "differing"), ["a"])
    assert said == []
