"""The tutorial as a new user runs it: its files, real processes, a private Redis; only quicker and on a free port."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs.tutorial import COUNT, QUICK, Tutorial
from tests.servers.command import RunningCommand, start

Started = Callable[..., RunningCommand]
pytestmark = pytest.mark.usefixtures("redis_url")  # which skips, or under CI fails, where there is no redis-server


@pytest.fixture
def started() -> Iterator[Started]:
    """Start Python in the checkout, as somebody would who just unpacked it; nothing of it outlives the test."""
    commands: list[RunningCommand] = []

    def begin(*words: object) -> RunningCommand:
        commands.append(start(*words))
        return commands[-1]

    yield begin
    for command in commands:
        command.kill()


@pytest.fixture
def tutorial(tmp_path: Path) -> Tutorial:
    return Tutorial(tmp_path / "tutorial")


def shown(line: str) -> tuple[Any, Any, Any]:
    """What of a message is the same in every run."""
    message = json.loads(line)
    return message["payload"], message["creator"], message["version"]


def test_the_json_and_its_twin_deliver_the_same(tutorial: Tutorial, started: Started) -> None:
    servers, runs = [], []
    for name, command in (("pipeline.json", ["-m", "celerypipe", "run"]), ("pipeline.py", [])):
        output = tutorial.folder / f"{name}.arrived"
        server = started(tutorial.folder / "server.py", "--port", 0, "--count", COUNT, "--output", output)
        endpoint = server.wait_for("listening on ")
        definition = tutorial.change(name, {**QUICK, "ws://127.0.0.1:8081": endpoint})
        text = definition.read_text()
        assert '{"delay": 0.05}' in text
        assert f'"count": {COUNT}' in text
        assert endpoint in text
        servers.append((server, output))
        runs.append(started(*command, definition, *(["--json"] if command else [])))

    of_json, of_python = (run.finish() for run in runs)
    assert (of_json.returncode, of_python.returncode) == (0, 0), of_json.stderr + of_python.stderr
    for server, _ in servers:
        served = server.finish()
        assert (served.returncode, served.stderr) == (0, "")
        _, *lines = [line.partition("  ")[0] for line in served.stdout.splitlines()]
        assert lines == [f"{number + 1}: {number}" for number in range(COUNT)]
    by_json, by_python = ([shown(line) for line in output.read_text().splitlines()] for _, output in servers)
    assert by_json == by_python
    assert [payload for payload, _, _ in by_json] == list(range(COUNT))

    nodes = {node["name"]: node for node in json.loads(of_json.stdout)["nodes"]}
    assert (nodes["1_proc"]["queue"], nodes["1_proc"]["sent"]) == ("remote", COUNT)
    assert nodes["2_dst"]["received"] == COUNT
    assert "worker remote is ready" in of_json.stderr
    assert "test_mocked_pipeline: done" in of_python.stdout
    assert (tutorial.folder / "pipe").is_dir()


def test_with_a_timeout_of_one_second_it_fails_and_says_where_the_second_went(
    tutorial: Tutorial, started: Started
) -> None:
    server = started(tutorial.folder / "server.py", "--port", 0)
    endpoint = server.wait_for("listening on ")
    definition = tutorial.change("pipeline.json", {'"timeout": 5': '"timeout": 1', "ws://127.0.0.1:8081": endpoint})
    run = started("-m", "celerypipe", "run", definition, "--json").finish()
    said = run.stderr
    assert run.returncode == 1, said
    assert re.search(r"1_proc: 1\.0 s exceeded \(\d\.\d s waiting on 'remote', \d\.\d s running on \S+\)", said), said
    assert "Traceback" not in said
    told = json.loads(run.stdout)
    assert told["status"] == "failed"
    assert told["error"] in said
    failed = {node["name"]: node["failed"] for node in told["nodes"]}
    assert {name: [*kinds] for name, kinds in failed.items()} == {"0_src": [], "1_proc": ["timeout"], "2_dst": []}
