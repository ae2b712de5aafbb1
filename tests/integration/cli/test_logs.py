"""What workers log and print, on the terminal of ``run`` and from anywhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.printing import CONFIG
from tests.servers import RedisServer, RunningWorker, StartWorker, eventually
from tests.servers.command import begin, celerypipe, start

#: One process, which warms up once.
ALONE = {"warp_configuration": {"parallel": 1}}


def written(folder: Path, queue: str, **configuration: Any) -> Path:
    """A file with a pipeline of two warped nodes in a row."""
    warp = {"type": "proc", "warped": True, "warp_configuration": {"queue": queue}}
    nodes = [
        {"name": "numbers", "type": "source", "mark": "data_streamer", "configuration": {"count": 1, "rate": 0}},
        {"name": "first", "mark": "tests.nodes.printing.Wordy", "configuration": configuration, **warp},
        {"name": "second", "mark": "tests.nodes.printing.Doubled", **warp},
    ]
    links = [{"from": "numbers", "to": "first"}, {"from": "first", "to": "second"}]
    file = folder / "pipeline.json"
    file.write_text(
        json.dumps({"version": "1.0", "pipeline": {"name": "p", "id": "p", "nodes": nodes, "links": links}})
    )
    return file


@pytest.fixture
def worker(shared_worker: StartWorker) -> RunningWorker:
    return shared_worker("lcli", pool="prefork", concurrency=2, config=CONFIG)


def test_a_run_shows_them_and_they_can_be_read_afterwards(
    worker: RunningWorker, redis_url: str, tmp_path: Path
) -> None:
    file = written(tmp_path, "lcli")
    done = celerypipe("run", file, "--redis", redis_url, "--json", "--log-level", "info")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "│" in line]
    for text in ("first │ warming up", "first │ info 0", "first │ WARNING warning 0", "second │ doubling 0"):
        assert text in said, done.stderr
    assert "first │ Traceback (most recent call last):" in done.stderr, "each line has its node"
    assert "debug" not in done.stderr
    run = json.loads(done.stdout)["run"]

    shown = celerypipe("logs", run, "--redis", redis_url)
    assert shown.returncode == 0, shown.stderr
    assert [line.partition(" │ ")[2] for line in shown.stdout.splitlines()] == [
        line.partition(" │ ")[2] for line in said
    ]
    one = celerypipe("logs", run, "--node", "second", "--json", "--redis", redis_url)
    (line,) = [json.loads(each) for each in one.stdout.splitlines()]
    assert (line["text"], line["node"], line["run"], line["stream"]) == ("doubling 0", "second", run, "stdout")
    none = celerypipe("logs", run, "--node", "nobody", "--redis", redis_url)
    assert (none.returncode, none.stdout) == (0, "")
    assert "node 'nobody' of" in none.stderr


def test_quiet_is_quiet(worker: RunningWorker, redis_url: str, tmp_path: Path) -> None:
    done = celerypipe("run", written(tmp_path, "lcli"), "--redis", redis_url, "--json", "--quiet")
    assert done.returncode == 0
    assert done.stderr == ""
    run = json.loads(done.stdout)["run"]
    shown = celerypipe("logs", run, "--redis", redis_url)
    assert shown.returncode == 0, "it was a run"
    assert "has logged nothing" in shown.stderr


def test_who_follows_sees_lines_as_they_come_and_the_end(worker: RunningWorker, redis_url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = begin("run", written(tmp_path, "lcli", wait=str(gate)), "--redis", redis_url, "--json")
    eventually(lambda: "warning 0" in running.err.read_text(), "a line of the run")
    found = json.loads(celerypipe("status", "--json", "--redis", redis_url).stdout)
    (run,) = [each["id"] for each in found["runs"] if each["state"] == "running"]
    following = begin("logs", run[:6], "--follow", "--redis", redis_url)
    eventually(lambda: "warning 0" in following.out.read_text(), "the lines so far")
    gate.touch()
    eventually(lambda: "doubling 0" in following.out.read_text(), "the lines that came")
    assert running.finish().returncode == 0
    assert following.finish().returncode == 0, "the run is over"


def test_a_worker_says_what_belongs_to_no_run(start_worker: StartWorker, private_redis: RedisServer) -> None:
    worker = start_worker("lboot", url=private_redis.url, pool="solo", config=CONFIG)
    name = worker.presence["name"]
    eventually(lambda: "serving" in celerypipe("logs", name, "--redis", private_redis.url).stdout, "what it said")
    following = begin("logs", worker.presence["id"], "--follow", "--redis", private_redis.url)
    eventually(lambda: "serving" in following.out.read_text(), "what it said")
    worker.stop()
    following.process.terminate()
    following.process.wait()
    unknown = celerypipe("logs", "nonsense", "--redis", private_redis.url)
    assert unknown.returncode == 2
    assert "no run or worker 'nonsense'" in unknown.stderr
    assert "celerypipe status" in unknown.stderr


def test_the_workers_of_a_temporary_redis_are_heard_too(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    (tmp_path / "tasks" / "loud.py").write_text(
        "from celerypipe import Message, Proc\n\n\nclass Loud(Proc):\n    def warmup(self) -> None:\n"
        '        print("warming up")\n\n    def update(self, message: Message) -> Message:\n'
        '        print("hello", message.payload)\n        return message\n'
    )
    nodes = [
        {"name": "numbers", "type": "source", "mark": "data_streamer", "configuration": {"count": 2, "rate": 0}},
        {"name": "loud", "type": "proc", "mark": "tasks.loud.Loud", "warped": True, **ALONE},
    ]
    links = [{"from": "numbers", "to": "loud"}]
    file = tmp_path / "pipeline.json"
    file.write_text(
        json.dumps({"version": "1.0", "pipeline": {"name": "p", "id": "p", "nodes": nodes, "links": links}})
    )
    done = celerypipe("run", file, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "│" in line] == [
        "loud │ warming up",
        "loud │ hello 0",
        "loud │ hello 1",
    ]


def test_a_script_without_a_log_of_its_own_shows_them_on_stderr(worker: RunningWorker, redis_url: str) -> None:
    text = (
        "from celerypipe import Message, Runner\nfrom tests.runs.pipelines import warped\n"
        f"list(Runner({redis_url!r}).stream(warped('tests.nodes.printing.Doubled', 'lcli'), [Message(4)]))\n"
    )
    done = start("-c", text).finish()
    assert done.returncode == 0, done.stderr
    assert "there │ doubling 4" in done.stderr.splitlines()
