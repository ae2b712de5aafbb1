"""A run is recorded, and one node is run again on what it got: with a debugger, in this terminal."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from celerypipe import ConfigError, Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from tests.nodes.live import CONFIG
from tests.servers import ROOT, StartWorker, eventually
from tests.servers.command import celerypipe
from tests.servers.terminal import Terminal

GAIN = "tests.nodes.live.Gain"


def chain(queue: str, **configuration: Any) -> Pipeline:
    """A warped node twice, and one that runs here, which fails over a text."""
    there: dict[str, Any] = {"type": "proc", "warped": True, "warp_configuration": {"queue": queue}}
    nodes = [
        NodeDefinition(name="one", mark=GAIN, configuration={"factor": 2, **configuration}, **there),
        NodeDefinition(name="two", mark=GAIN, configuration={"factor": 3}, on_error="skip", **there),
        NodeDefinition(name="near", mark=GAIN, type="proc", configuration={"factor": 5}, on_error="skip"),
    ]
    return Pipeline(name="chain", nodes=nodes, links=[("one", "two"), ("two", "near")])


def test_each_hop_of_a_recorded_run_can_be_run_again(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("lhop", pool="solo", concurrency=1, config=CONFIG)
    folder = tmp_path / "rec"
    runner = Runner(redis_url, record=folder)
    payloads = [1, 2, "x"]
    out = [message.payload for message in runner.stream(chain("lhop"), [Message(each) for each in payloads])]
    assert out == [30, 60, "x" * 30]
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert all(stat.S_IMODE(os.stat(each).st_mode) == 0o600 for each in folder.rglob("*.in"))
    for node, number, result in (("one", "0", 2), ("two", "1", 12), ("near", "2", "x" * 30)):
        done = celerypipe("replay-hop", folder, node, number, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert f"output 1: {json.dumps(result)}" in done.stdout
        assert "the same as in the recorded run" in done.stdout
    changed = celerypipe("replay-hop", folder, "two", "1", "--set", "two.factor=7", "--json", cwd=ROOT)
    assert changed.returncode == 1
    said = json.loads(changed.stdout)
    assert (said["same"], [each["payload"] for each in said["outputs"]]) == (False, [28])
    for words, why in (
        (("nobody", "0"), "there is no node 'nobody' in this run"),
        (("one", "77"), "no message '77' of node 'one' is recorded"),
    ):
        wrong = celerypipe("replay-hop", folder, *words, cwd=ROOT)
        assert (wrong.returncode, why in wrong.stderr) == (2, True), wrong.stderr
    assert celerypipe("replay-hop", tmp_path, "one", "0").returncode == 2
    with pytest.raises(ConfigError, match="is not empty"):
        list(Runner(redis_url, record=folder).stream(chain("lhop"), [Message(1)]))


def test_a_message_that_failed_fails_again_with_its_traceback(tmp_path: Path) -> None:
    pipeline = Pipeline(
        name="p", nodes=[NodeDefinition(name="near", mark=GAIN, type="proc", on_error="skip")], links=[]
    )
    failing = tmp_path / "failing"
    list(Runner(local=True, record=failing).stream(pipeline, [Message({"a": 1})]))
    done = celerypipe("replay-hop", failing, "near", "0", cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert "TypeError" in done.stdout
    assert "Traceback" in done.stderr
    assert "the same as in the recorded run" in done.stdout


def test_a_recording_is_bounded(tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "rec"
    pipeline = Pipeline(name="p", nodes=[NodeDefinition(name="near", mark=GAIN, type="proc")], links=[])
    runner = Runner(local=True, record=folder, record_most=5_000, on_event=said.append)
    assert len(list(runner.stream(pipeline, [Message(each) for each in range(200)]))) == 200
    assert sum(each.stat().st_size for each in folder.rglob("near/*")) <= 5_000
    assert len([text for text in said if "nothing more is recorded" in text]) == 1


def test_a_breakpoint_stops_in_this_terminal(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import sys\n\nfrom celerypipe import Message, Proc\n\n\nclass Stops(Proc):\n"
        "    def update(self, message: Message) -> Message:\n"
        "        if sys.stdin.isatty():\n            breakpoint()\n        return message\n"
    )
    pipeline = {
        "version": "1.0",
        "pipeline": {
            "name": "p",
            "id": "p",
            "nodes": [
                {
                    "name": "numbers",
                    "type": "source",
                    "mark": "data_streamer",
                    "configuration": {"count": 1, "rate": 0},
                },
                {"name": "stops", "type": "proc", "mark": "broken.Stops"},
            ],
            "links": [{"from": "numbers", "to": "stops"}],
        },
    }
    (tmp_path / "pipeline.json").write_text(json.dumps(pipeline))
    recorded = celerypipe("run", "pipeline.json", "--record", "rec", cwd=tmp_path)
    assert recorded.returncode == 0, recorded.stderr
    terminal = Terminal()
    try:
        replayed = terminal.start("-m", "celerypipe", "replay-hop", "rec", "stops", "0", cwd=tmp_path)
        eventually(lambda: "(Pdb)" in terminal.text, "the debugger")
        terminal.type("p message.payload + 41\n")
        eventually(lambda: "\n41" in terminal.text, "what was asked")
        terminal.type("c\n")
        eventually(lambda: "the same as in the recorded run" in terminal.text, "the end")
        assert replayed.wait(20) == 0
    finally:
        terminal.close()
