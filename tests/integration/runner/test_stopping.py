"""However a run is told to end, what is on its way comes out or is given up at once, and a report is left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, NodeTimeout, Runner
from tests.runs.pipelines import warped
from tests.servers import ROOT, eventually
from tests.servers.command import begin, celerypipe
from tests.servers.terminal import Terminal
from tests.servers.zygote import Forked, zygote

TALK = "tests.nodes.printing.Talk"


def endless(folder: Path, name: str = "endless", mark: str = TALK) -> Path:
    """A pipeline without end, with a folder, whose node prints at each message."""
    definition = {
        "version": "1",
        "plugins": [],
        "pipeline": {
            "name": name,
            "id": "1",
            "folder": str(folder / "kept"),
            "nodes": [
                {
                    "name": "zahlen",
                    "type": "source",
                    "mark": "data_streamer",
                    "configuration": {"count": 10**6, "rate": 200},
                },
                {"name": "spricht", "type": "proc", "mark": mark},
                {"name": "file", "type": "sink", "mark": "json_lines", "configuration": {"path": str(folder / "out")}},
            ],
            "links": [{"from": "zahlen", "to": "spricht"}, {"from": "spricht", "to": "file"}],
        },
    }
    path = folder / "pipeline.json"
    path.write_text(json.dumps(definition))
    return path


def wait_for_output(folder: Path) -> None:
    """Wait until messages come out."""
    out = folder / "out"
    eventually(lambda: out.exists() and out.stat().st_size > 100, "output")


def start(folder: Path, *streams: int, mark: str = TALK, ignored: Sequence[int] = ()) -> Forked:
    """Run it with these standard streams (output, error, input); return when messages come out."""
    words = ["-m", "celerypipe", "run", str(endless(folder, mark=mark))]
    process = zygote.fork(words, cwd=ROOT, environment=os.environ, streams=streams, ignored=ignored)
    try:
        wait_for_output(folder)
    except AssertionError:
        process.kill()
        raise
    return process


def report(folder: Path) -> dict[str, Any]:
    """The report in its folder; what came out of the node is all in the file."""
    found: dict[str, Any] = json.loads((folder / "kept" / "report.json").read_text())
    nodes = {node["name"]: node for node in found["nodes"]}
    written = [json.loads(line) for line in (folder / "out").read_text().splitlines()]
    assert written == list(range(len(written)))
    if found["status"] == "stopped":
        assert nodes["zahlen"]["sent"] == nodes["file"]["received"] == len(written)
    return found


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(signal.SIGHUP, "stopped", 0), (signal.SIGTERM, "stopped", 0), (signal.SIGQUIT, "cancelled", 1)],
)
def test_each_signal_leaves_a_report(tmp_path: Path, number: signal.Signals, status: str, code: int) -> None:
    run = begin("run", endless(tmp_path, mark=TALK), "--json")
    try:
        wait_for_output(tmp_path)
        run.process.send_signal(number)
    finally:
        ended = run.finish()
    assert ended.returncode == code, ended.stderr
    assert json.loads(ended.stdout) == report(tmp_path)
    assert report(tmp_path)["status"] == status
    assert number.name in ended.stderr


def test_a_terminal_that_is_closed_leaves_a_report_and_no_process(tmp_path: Path) -> None:
    terminal = Terminal()
    process = start(tmp_path, *[terminal.theirs] * 3)
    terminal.close()
    assert process.wait(30) == 0
    assert report(tmp_path)["status"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_is_ignored_when_it_starts_stays_ignored(tmp_path: Path, number: signal.Signals) -> None:
    with open(os.devnull, "w") as nowhere:
        # As nohup does, and a shell for what it starts in the background.
        process = start(tmp_path, *[nowhere.fileno()] * 2, ignored=[number])
    process.send_signal(number)
    size = (tmp_path / "out").stat().st_size
    eventually(lambda: (tmp_path / "out").stat().st_size > size + 500, "more output")
    process.terminate()
    assert process.wait(30) == 0
    assert report(tmp_path)["status"] == "stopped"


def test_whose_reader_leaves_the_run_goes_on(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with open(os.devnull, "w") as nowhere:
        process = start(tmp_path, nowhere.fileno(), writing, mark="passthrough_identity")
    os.close(writing)
    os.close(reading)
    process.send_signal(signal.SIGINT)  # which is said on that pipe
    assert process.wait(30) == 130
    assert report(tmp_path)["status"] == "stopped"


def test_what_an_encoding_has_not_is_escaped(tmp_path: Path) -> None:
    path = endless(tmp_path, "Zählen → 数")
    definition = json.loads(path.read_text())
    definition["pipeline"]["nodes"][0]["configuration"] = {"count": 3}
    path.write_text(json.dumps(definition))
    run = celerypipe("run", path, PYTHONIOENCODING="ascii")
    assert run.returncode == 0, run.stderr
    assert r"Z\xe4hlen \u2192 \u6570: done" in run.stderr  # its node writes to standard output


def test_a_listener_that_fails_ends_nothing(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    def listener(text: str) -> None:
        raise OSError("nobody listens")

    pipeline = warped("tests.nodes.remote.Echo", "nobody", timeout=0.3)
    with pytest.raises(NodeTimeout):
        list(Runner(redis_url, on_event=listener).stream(pipeline, [Message(1)]))
    assert "on_event failed on" in caplog.text
