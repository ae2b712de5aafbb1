"""How a command ends, and whose standard output is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import PATIENCE, ROOT, eventually
from tests.servers.command import begin, celerypipe

LOUD = """
import os, subprocess
from celerypipe import Proc

class Printing(Proc):
    def update(self, message):
        print("printed")
        return message

class Writing(Proc):
    def update(self, message):
        os.write(1, b"written\\n")
        subprocess.run(["echo", "by a child"])
        return message

class Silent(Proc):
    def update(self, message):
        if message.payload == 1:
            raise ValueError("no one")
        return message
"""


def pipeline(folder: Path, mark: str, **options: Any) -> Path:
    (folder / "loud.py").write_text(LOUD)
    nodes: list[dict[str, Any]] = [
        {"name": "src", "type": "source", "mark": "data_streamer", "configuration": {"count": 3, "rate": 0}},
        {"name": "node", "type": "proc", "mark": mark, **options},
        {"name": "out", "type": "sink", "mark": "json_lines", "configuration": {"path": str(folder / "out.jsonl")}},
    ]
    links = [{"from": "src", "to": "node"}, {"from": "node", "to": "out"}]
    path = folder / "pipeline.json"
    kept = {"folder": "kept"} if options.get("on_error") == "dead_letter" else {}
    path.write_text(json.dumps({"version": "1", "pipeline": {"name": "p", "nodes": nodes, "links": links, **kept}}))
    return path


# -- standard output ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["loud.Printing", "loud.Writing"])
def test_json_has_standard_output_for_itself(tmp_path: Path, mark: str) -> None:
    done = celerypipe("run", pipeline(tmp_path, mark), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    for said in ("printed",) if mark == "loud.Printing" else ("written", "by a child"):
        assert done.stderr.count(said) == 3


@pytest.mark.parametrize("mark", ["loud.Printing", "loud.Writing", "loud.Silent"])
def test_the_table_leaves_standard_output_to_nodes_that_write_there(tmp_path: Path, mark: str) -> None:
    done = celerypipe("run", pipeline(tmp_path, mark, on_error="skip"), "--quiet", cwd=tmp_path)
    with_table, without = (done.stdout, done.stderr) if mark == "loud.Silent" else (done.stderr, done.stdout)
    assert "p: done in" in with_table
    assert "p: done in" not in without


def test_a_sink_may_write_to_the_file_that_is_standard_output(tmp_path: Path) -> None:
    path = pipeline(tmp_path, "passthrough_identity")
    path.write_text(path.read_text().replace(str(tmp_path / "out.jsonl"), "/dev/stdout"))
    command = ["celerypipe", "run", str(path), "--allow", "/"]
    program = "import sys; from celerypipe.cli import main; sys.argv = sys.argv[1:]; main()"
    around = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(  # through a pipe, which has no size
        [sys.executable, "-c", program, *command], capture_output=True, text=True, env=around, check=False
    )
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n"), done.stderr
    assert "p: done in" in done.stderr


# -- exit status ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_error", "options", "status", "last"),
    [
        ("skip", (), 0, "1 message skipped"),
        ("skip", ("--fail-on-skip",), 1, "1 message skipped"),
        ("dead_letter", (), 3, "1 message kept as dead letters"),
        ("stop", (), 1, ""),
    ],
)
def test_what_became_of_messages_tells_how_it_ends(
    tmp_path: Path, on_error: str, options: tuple[str, ...], status: int, last: str
) -> None:
    done = celerypipe("run", pipeline(tmp_path, "loud.Silent", on_error=on_error), *options, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-1].startswith(last)
    if status == 1 and not options:
        error, place = done.stderr.splitlines()[-2:]
        assert error.endswith("celerypipe: NodeFailed: node: ValueError: no one")
        assert place.startswith("  message ")


@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_before_the_run_begins_ends_it_with_130(tmp_path: Path, redis_url: str, twice: bool) -> None:
    path = pipeline(tmp_path, "passthrough_identity", warped=True, timeout=30, warp_configuration={"queue": "early"})
    run = begin("run", path, cwd=tmp_path, CELERYPIPE_REDIS_URL="", CELERY_BROKER_URL="")
    eventually(lambda: "starting" in run.err.read_text(), "a private Redis that is started")
    run.process.send_signal(signal.SIGINT)
    if twice:
        run.process.send_signal(signal.SIGINT)
    done = run.finish()
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert done.stderr.endswith("celerypipe: stopped by Ctrl-C\n")
    assert "Traceback" not in done.stderr


def test_the_help_says_what_each_status_means() -> None:
    shown = celerypipe("--help").stdout
    for line in ("2    the command line", "3    done, but for messages", "69   Redis is not there", "130  stopped by"):
        assert line in shown
    assert "130" in celerypipe("run", "--help").stdout


def test_ctrl_c_is_heard_while_the_commands_are_imported(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import sys, time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    around = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "celerypipe", "run", "pipeline.json"]
    with subprocess.Popen(command, env=around, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, "celerypipe: stopped by Ctrl-C\n")
