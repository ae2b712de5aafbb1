"""A hand on a run from another terminal: set, suspend, unsuspend and restart as commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes.live import CONFIG
from tests.servers import StartWorker, eventually
from tests.servers.command import RunningCommand, begin, celerypipe


@pytest.fixture
def running(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> Iterator[RunningCommand]:
    """A run that goes on until it is cancelled: a warped node, and one that runs here."""
    shared_worker("lorder", pool="prefork", concurrency=1, config=CONFIG)
    gain = {"type": "proc", "mark": "tests.nodes.live.Gain"}
    nodes = [
        {"name": "numbers", "type": "source", "mark": "data_streamer", "configuration": {"count": 100_000, "rate": 20}},
        {"name": "far", **gain, "warped": True, "warp_configuration": {"queue": "lorder"}},
        {"name": "near", **gain},
        {"name": "out", "type": "sink", "mark": "json_lines", "configuration": {"path": str(tmp_path / "out.jsonl")}},
    ]
    links = [{"from": "numbers", "to": "far"}, {"from": "far", "to": "near"}, {"from": "near", "to": "out"}]
    file = tmp_path / "pipeline.json"
    file.write_text(
        json.dumps({"version": "1.0", "pipeline": {"name": "p", "id": "p", "nodes": nodes, "links": links}})
    )
    command = begin("run", file, "--redis", redis_url, cwd=tmp_path)
    yield command
    command.kill()


def test_orders_from_another_terminal(running: RunningCommand, redis_url: str, tmp_path: Path) -> None:
    def said(*words: str) -> tuple[int, str, str]:
        done = celerypipe(*words, "--redis", redis_url)
        return done.returncode, done.stdout, done.stderr

    def going_on() -> list[str]:
        runs = json.loads(celerypipe("status", "--json", "--redis", redis_url).stdout)["runs"]
        return [each["id"] for each in runs if each["state"] == "running" and each["pipeline"] == "p"]

    out = tmp_path / "out.jsonl"
    eventually(lambda: out.exists() and out.read_text(), "results")
    (run,) = going_on()
    for name in ("far", "near"):
        status, text, error = said("set", run[:6], name, "factor", "1000000")
        assert f"{name}: factor = 1000000 (run {run})" in text, error
        assert status == (1 if "has not answered yet" in text else 0), text
    eventually(lambda: "000000000000" in out.read_text(), "what was set on both")
    for command in ("suspend", "unsuspend", "restart"):
        status, text, error = said(command, run, "near")
        assert error.count("\n") == 1, error
        assert status == (1 if "has not answered yet" in text else 0), text
    status, text, _ = said("set", run, "far", "volume", "1", "--json")
    assert status == 1
    assert any("no property 'volume'" in each["error"] for each in json.loads(text)) or "late" in text
    for words, why in (
        (("set", run, "fär", "factor", "1"), "there is no node 'fär' in this run"),
        (("suspend", run, "numbers"), "'numbers' is a source"),
        (("suspend", "nonsense", "far"), "nonsense"),
    ):
        status, _, error = said(*words)
        assert (status, why in error) == (2, True), error
    assert celerypipe("cancel", run, "--redis", redis_url).returncode == 0
    running.finish()
    status, _, error = said("set", run, "far", "factor", "1")
    assert status == 2, "it is over, or gone"
    assert "gain" not in error
    assert "far: set factor" in running.err.read_text()
