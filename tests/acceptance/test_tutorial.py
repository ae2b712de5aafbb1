"""The tutorial as a new user runs it: its files, real processes, a private Redis; only quicker and on a free port."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runs.tutorial import COUNT, QUICK, Tutorial
from tests.servers import PATIENCE, ROOT

pytestmark = pytest.mark.usefixtures("redis_url")  # which skips, or under CI fails, where there is no redis-server


def start(*words: object) -> subprocess.Popen[str]:
    """Start this Python with the words, in the checkout, as somebody would who just unpacked it."""
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that do not outlive the test."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> subprocess.Popen[str]:
        processes.append(start(*words))
        return processes[-1]

    yield begin
    for process in processes:
        with process:  # closes its pipes, and waits
            process.kill()


@pytest.fixture
def tutorial(tmp_path: Path) -> Tutorial:
    return Tutorial(tmp_path / "tutorial")


def shown(line: str) -> tuple[Any, Any, Any]:
    """What of a message is the same in every run."""
    message = json.loads(line)
    return message["payload"], message["creator"], message["version"]


def test_the_json_and_its_twin_deliver_the_same(
    tutorial: Tutorial, started: Callable[..., subprocess.Popen[str]]
) -> None:
    servers, runs = [], []
    for name, command in (("pipeline.json", ["-m", "celerypipe", "run"]), ("pipeline.py", [])):
        output = tutorial.folder / f"{name}.arrived"
        server = started(tutorial.folder / "server.py", "--port", 0, "--count", COUNT, "--output", output)
        assert server.stdout is not None
        endpoint = server.stdout.readline().removeprefix("listening on ").strip()
        definition = tutorial.change(name, {**QUICK, "ws://127.0.0.1:8081": endpoint})
        text = definition.read_text()
        assert '{"delay": 0.05}' in text
        assert f'"count": {COUNT}' in text
        assert endpoint in text
        servers.append((server, output))
        runs.append(started(*command, definition, *(["--json"] if command else [])))

    (report, said), (table, errors) = (run.communicate(timeout=PATIENCE) for run in runs)
    assert [run.returncode for run in runs] == [0, 0], said + errors
    for server, _ in servers:
        printed, complaints = server.communicate(timeout=PATIENCE)
        assert (server.returncode, complaints) == (0, "")
        assert [line.partition("  ")[0] for line in printed.splitlines()] == [f"{n + 1}: {n}" for n in range(COUNT)]
    of_json, of_python = ([shown(line) for line in output.read_text().splitlines()] for _, output in servers)
    assert of_json == of_python
    assert [payload for payload, _, _ in of_json] == list(range(COUNT))

    nodes = {node["name"]: node for node in json.loads(report)["nodes"]}
    assert (nodes["1_proc"]["queue"], nodes["1_proc"]["sent"]) == ("remote", COUNT)
    assert nodes["2_dst"]["received"] == COUNT
    assert "worker remote is ready" in said
    assert "test_mocked_pipeline: done" in table
    assert (tutorial.folder / "pipe").is_dir()


def test_with_a_timeout_of_one_second_it_fails_and_says_where_the_second_went(
    tutorial: Tutorial, started: Callable[..., subprocess.Popen[str]]
) -> None:
    server = started(tutorial.folder / "server.py", "--port", 0)
    assert server.stdout is not None
    endpoint = server.stdout.readline().removeprefix("listening on ").strip()
    definition = tutorial.change("pipeline.json", {'"timeout": 5': '"timeout": 1', "ws://127.0.0.1:8081": endpoint})
    run = started("-m", "celerypipe", "run", definition, "--json")
    report, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1, said
    assert re.search(r"1_proc: 1\.0 s exceeded \(\d\.\d s waiting on 'remote', [01]\.\d s running on \S+\)", said), said
    assert "Traceback" not in said
    told = json.loads(report)
    assert told["status"] == "failed"
    assert told["error"] in said
    assert {node["name"]: node["failed"] for node in told["nodes"]} == {
        "0_src": {},
        "1_proc": {"timeout": 1},
        "2_dst": {},
    }
