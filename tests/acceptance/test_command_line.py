"""``celerypipe run`` as a real process: what it prints, how it exits, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.servers import PATIENCE, eventually
from tests.servers.command import begin, celerypipe
from tests.servers.extent import LONG, at_length
from tests.servers.processes import alive, descendants


def definition(folder: Path, **changes: Any) -> Path:
    """A pipeline of numbers through a warped node into a file; ``changes``: node → its configuration."""
    configurations = {
        "src": {"count": 3, "rate": 0},
        "there": {"delay": 0.001},
        "out": {"path": str(folder / "out.jsonl")},
        **changes,
    }
    nodes: list[dict[str, Any]] = [
        {"name": "src", "type": "source", "mark": "data_streamer"},
        {
            "name": "there",
            "type": "proc",
            "mark": "passthrough_identity",
            "warped": True,
            "warp_configuration": {"queue": "remote", "timeout": 30},
        },
        {"name": "out", "type": "sink", "mark": "json_lines"},
    ]
    for node in nodes:
        node["configuration"] = configurations[node["name"]]
    links = [{"from": "src", "to": "there"}, {"from": "there", "to": "out"}]
    path = folder / "pipeline.json"
    path.write_text(json.dumps({"version": "1", "pipeline": {"name": "numbers", "nodes": nodes, "links": links}}))
    return path


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """``celerypipe run`` to its end."""
    return celerypipe("run", *words, cwd=folder)


# -- what it prints, how it exits -------------------------------------------------------------------------------------


def test_a_local_run_exits_0_and_json_is_all_it_prints(tmp_path: Path) -> None:
    done = run(tmp_path, definition(tmp_path), "--local", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["status"] == "done"
    assert [(node["name"], node["received"], node["sent"]) for node in report["nodes"]] == [
        ("src", 0, 3),
        ("there", 3, 3),
        ("out", 3, 0),
    ]
    assert (tmp_path / "out.jsonl").read_text() == "0\n1\n2\n"
    assert "starting" not in done.stderr


def test_without_json_it_prints_the_table(tmp_path: Path) -> None:
    done = run(tmp_path, definition(tmp_path), "--local", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert "numbers: done" in done.stdout


def test_what_is_said_beside_the_report_has_one_layout_and_is_json_if_wanted(tmp_path: Path) -> None:
    path = definition(tmp_path, src={"items": [1, 2], "rate": 0}, there={})
    data = json.loads(path.read_text())
    data["pipeline"]["nodes"][1].update(
        mark="tests.nodes.remote.Picky", configuration={"bad": [2]}, warped=False, on_error="skip"
    )
    del data["pipeline"]["nodes"][1]["warp_configuration"]
    path.write_text(json.dumps(data))
    skipped = "there: message .* skipped: ValueError: 2 is not to my taste"
    first, second = run(tmp_path, path).stderr.splitlines()
    assert first == "warning: there: about to refuse 2"
    assert re.fullmatch(f"warning: {skipped}", second)
    one, other = map(json.loads, run(tmp_path, path, "--log-format", "json").stderr.splitlines())
    assert (one["logger"], one["level"], one["text"]) == ("celerypipe.node.there", "WARNING", "about to refuse 2")
    assert re.fullmatch(skipped, other["text"])
    assert [one[key] for key in ("run", "node", "message")] == [other[key] for key in ("run", "node", "message")]
    assert (one["node"], one["worker"], one["message"] in other["text"]) == ("there", None, True)
    wrong = run(tmp_path, tmp_path / "none.json", "--log-format", "json")
    assert json.loads(wrong.stderr)["text"] == f"{tmp_path}/none.json: there is no such file"
    said = celerypipe("run", path, cwd=tmp_path, CELERYPIPE_LOG_FORMAT="xml")
    assert said.returncode == 2
    assert said.stderr.endswith(": CELERYPIPE_LOG_FORMAT: 'xml' is neither text nor json\n")


LEAVES = """
import os, subprocess, time
from celerypipe import node

@node
def leave(value: int) -> list[int]:
    child = os.fork()
    if not child:
        subprocess.run(["sleep", "600"])
    return [child, subprocess.Popen(["sleep", "600"], start_new_session=True).pid]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a /proc")
def test_what_nodes_started_here_ends_with_the_run_but_for_a_session_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(LEAVES)
    path = definition(tmp_path, src={"items": [1], "rate": 0})
    data = json.loads(path.read_text())
    data["pipeline"]["nodes"][1] = {"name": "there", "type": "proc", "mark": "leaves.leave"}
    path.write_text(json.dumps(data))
    assert run(tmp_path, path, "--quiet").returncode == 0
    forked, stays = json.loads((tmp_path / "out.jsonl").read_text())
    os.kill(stays, signal.SIGKILL)
    eventually(lambda: not alive(forked), "the end of what was forked")


def test_a_run_that_fails_exits_1_and_still_reports(tmp_path: Path) -> None:
    path = definition(tmp_path)
    (tmp_path / "in.jsonl").write_text("1\nnot json\n")
    data = json.loads(path.read_text())
    data["pipeline"]["nodes"][0].update(mark="json_lines", configuration={"path": str(tmp_path / "in.jsonl")})
    path.write_text(json.dumps(data))
    done = run(tmp_path, path, "--local", "--json")
    assert done.returncode == 1, done.stderr
    assert "in.jsonl:2: not JSON" in done.stderr
    report = json.loads(done.stdout)
    assert report["status"] == "failed"
    assert "in.jsonl:2: not JSON" in report["error"]


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", *([">&-", "2>&-"] if LONG else [])])
def test_a_run_does_without_standard_streams(tmp_path: Path, closed: str) -> None:
    script = f'exec "$0" -m celerypipe run "$1" --local {closed}'
    done = subprocess.run(["sh", "-c", script, sys.executable, str(definition(tmp_path))], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_a_broken_definition_exits_2_with_every_complaint(tmp_path: Path) -> None:
    path = definition(tmp_path, src={"cuont": 3})
    data = json.loads(path.read_text())
    data["pipeline"]["nodes"][2]["mark"] = "json_linse"
    data["pipeline"]["links"].append({"from": "there", "to": "nowhere"})
    path.write_text(json.dumps(data))
    done = run(tmp_path, path, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pipeline.links[2].to: there is no node 'nowhere'" in done.stderr
    assert "data_streamer has no argument 'cuont'" in done.stderr
    assert "did you mean 'count'?" in done.stderr
    assert "did you mean 'json_lines'?" in done.stderr
    assert "starting" not in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_wrong_before_it_runs_exits_2_and_without_redis_69(tmp_path: Path) -> None:
    missing = run(tmp_path, tmp_path / "none.json")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "none.json" in missing.stderr
    nobody = run(tmp_path, definition(tmp_path), "--redis", f"unix://{tmp_path}/nobody.sock")
    assert nobody.returncode == 69
    assert "Redis is not there" in nobody.stderr
    assert "Traceback" not in nobody.stderr


@pytest.mark.parametrize(
    ("node", "mark", "configuration", "text"),
    [
        (0, "image_files", {"folder": "/nowhere"}, "src: no such folder: /nowhere"),
        (0, "json_lines", {"path": "/nowhere.jsonl"}, "src: /nowhere.jsonl: cannot be read"),
        (2, "json_lines", {"path": "/proc/nowhere.jsonl"}, "out: /proc/nowhere.jsonl: cannot be written"),
    ],
)
def test_a_wrong_setting_that_only_the_node_can_find_exits_2(
    tmp_path: Path, node: int, mark: str, configuration: dict[str, Any], text: str
) -> None:
    path = definition(tmp_path)
    data = json.loads(path.read_text())
    data["pipeline"]["nodes"][node].update(mark=mark, configuration=configuration)
    path.write_text(json.dumps(data))
    done = run(tmp_path, path, "--local", "--allow", "/")
    assert done.returncode == 2, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_no_number_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, definition(tmp_path), "--redis", "redis://:secret@localhost:6379/main")
    assert done.returncode == 2
    assert "a database is a number" in done.stderr
    assert "secret" not in done.stderr


# -- nothing stays behind ---------------------------------------------------------------------------------------------


class EmbeddedRun:
    """A run that goes on and on, in a process group of its own, whose private folder is below one of its own."""

    def __init__(self, home: Path) -> None:
        # Short, for a socket lies in it; every process of the run has it in its environment.
        self.temporary = Path(tempfile.mkdtemp(prefix="left-", dir="/tmp"))
        self.output = home / "out.jsonl"
        path = definition(home, src={"count": 1_000_000, "rate": 50})
        command = begin("run", path, "--json", cwd=home, TMPDIR=str(self.temporary))
        self.process, self.report, self.events = command.process, command.out, command.err

    def marked(self) -> set[int]:
        """Every live process that carries the name of the temporary folder."""
        mark = os.fsencode(self.temporary)
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            for file in ("environ", "cmdline"):
                with suppress(OSError):
                    if mark in (folder / file).read_bytes():
                        found.add(int(folder.name))
        return found

    def said(self, text: str) -> bool:
        """Whether it has said the text."""
        assert self.process.poll() is None, self.events.read_text()
        return text in self.events.read_text()

    def wait_for(self, text: str) -> set[int]:
        """Wait until it said the text; return all its processes."""
        eventually(lambda: self.said(text), f"{text!r}")
        return self.marked() | descendants(self.process.pid)

    def wait_for_results(self) -> set[int]:
        """Wait until results come out; return all its processes: the run, its supervisor, Redis, a worker."""
        self.wait_for("worker remote is ready")
        eventually(lambda: self.output.exists() and self.output.stat().st_size, "a result")
        found = self.marked() | descendants(self.process.pid)
        assert len(found) >= 4
        (folder,) = self.temporary.glob("celerypipe-*")
        assert (folder / "redis.sock").exists()
        return found

    def end_by(self, number: signal.Signals) -> int:
        """Send the signal to the process group, as a terminal does; return the exit status."""
        os.killpg(self.process.pid, number)
        return self.process.wait(PATIENCE)

    def expect_nothing_left(self, processes: set[int]) -> None:
        """Wait until none of the processes lives, nor any other of the run, and its folder is gone."""
        eventually(lambda: not any(map(alive, processes)) and not self.marked(), "the end of all processes")
        eventually(lambda: not list(self.temporary.iterdir()), "the end of the private folder")

    def close(self) -> None:
        """End what a failed test left."""
        left = self.marked()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in left - {self.process.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def _can_look(redis_url: str) -> None:
    """Skip where processes cannot be found; ``redis_url`` skips, or fails under CI, where there is no redis-server."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("no /proc here to find processes in")


@pytest.fixture(scope="module")
def runs(_can_look: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EmbeddedRun]]:
    """One run for each way to end it, started at the same time."""
    names = ("SIGINT", "SIGTERM", "SIGKILL")
    started = {name: EmbeddedRun(tmp_path_factory.mktemp(name)) for name in names}
    yield started
    for each in started.values():
        each.close()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_told_to_end_it_drains_reports_and_leaves_nothing(runs: dict[str, EmbeddedRun], name: str) -> None:
    ending = runs[name]
    processes = ending.wait_for_results()
    status = ending.end_by(signal.Signals[name])
    assert status == (130 if name == "SIGINT" else 0), ending.events.read_text()
    ending.expect_nothing_left(processes)
    assert f"{name}: finishing" in ending.events.read_text()
    report = json.loads(ending.report.read_text())
    assert report["status"] == "stopped"
    nodes = {node["name"]: node for node in report["nodes"]}
    written = ending.output.read_text().splitlines()
    assert written == [str(number) for number in range(nodes["src"]["sent"])]


def test_killed_it_leaves_nothing_either(runs: dict[str, EmbeddedRun]) -> None:
    ending = runs["SIGKILL"]
    processes = ending.wait_for_results()
    assert ending.end_by(signal.SIGKILL) == -signal.SIGKILL
    ending.expect_nothing_left(processes)


@pytest.mark.usefixtures("_can_look")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=at_length)])
def test_ended_while_its_worker_boots_it_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    ending = EmbeddedRun(tmp_path)
    try:
        processes = ending.wait_for("starting worker remote")
        assert ending.end_by(number) != 0
        ending.expect_nothing_left(processes)
        assert "Traceback" not in ending.events.read_text()
    finally:
        ending.close()
