"""A password, a key and a node's secret go through everything that fails, and are shown nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celerypipe.redis.connection import connect
from tests.nodes.remote import CONFIG
from tests.servers import PATIENCE, ROOT, RedisServer, RunningWorker, StartWorker, eventually
from tests.servers.command import celerypipe
from tests.servers.processes import command_line, descendants
from tests.servers.task import send_task

PASSWORD, KEY, TOKEN = "p4ssw0rd-of-redis", "k3y-of-the-signatures", "t0ken-of-a-node"
QUEUE = "secretive"


@pytest.fixture
def url(private_redis: RedisServer) -> Iterator[str]:
    with connect(private_redis.url) as client:
        client.config_set("requirepass", PASSWORD)
        yield private_redis.url.replace("unix://", f"unix://:{PASSWORD}@")


@pytest.fixture
def worker(start_worker: StartWorker, url: str) -> RunningWorker:
    return start_worker(
        QUEUE,
        url=url,
        pool="prefork",
        concurrency=1,
        config=CONFIG,
        env={"CELERYPIPE_KEYS": KEY},
        arguments=["--loglevel", "DEBUG"],
        fresh=True,  # what ``ps`` shows of it is looked at
    )


def definition(folder: Path, **configuration: object) -> Path:
    """Six numbers through a node with a secret of its own; 3 is not to its taste, 4 kills it, 5 takes too long."""
    there = {
        "name": "there",
        "type": "proc",
        "mark": "tests.nodes.remote.Trial",
        "timeout": 6.0,
        "on_error": "dead_letter",
    }
    there |= {"warped": True, "warp_configuration": {"queue": QUEUE}}
    settings = {"name": "$JT_ENV_TOKEN", "diary": str(folder / "diary"), "raises": [3], "dies": [4], "sleeps": [5]}
    there["configuration"] = {**settings, **configuration}
    numbers = {"name": "numbers", "type": "source", "mark": "data_streamer", "configuration": {"count": 6, "rate": 0}}
    out = {"name": "out", "type": "sink", "mark": "json_lines", "configuration": {"path": str(folder / "out.jsonl")}}
    body = {"name": "secretive", "folder": "run", "nodes": [numbers, there, out]}
    body["links"] = [{"from": "numbers", "to": "there"}, {"from": "there", "to": "out"}]
    path = folder / "pipeline.json"
    path.write_text(json.dumps({"version": "1", "pipeline": body}))
    return path


@pytest.mark.timeout(120)
def test_what_is_secret_is_shown_nowhere(worker: RunningWorker, url: str, tmp_path: Path) -> None:
    environment = {"CELERYPIPE_REDIS_URL": url, "CELERYPIPE_KEYS": KEY, "TOKEN": TOKEN}
    shown: dict[str, str] = {}

    def ask(*words: object, status: int, **changes: str) -> str:
        done = celerypipe(*words, cwd=tmp_path, **{**environment, **changes})
        assert done.returncode == status, done.stderr
        shown[f"celerypipe {words} with {changes.keys()}"] = done.stdout + done.stderr
        return done.stdout + done.stderr

    run = subprocess.Popen(
        [sys.executable, "-m", "celerypipe", "run", str(definition(tmp_path)), "--json", "--log-format", "json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: (tmp_path / "diary").exists() or run.poll() is not None, "a message at work")
    assert run.poll() is None, run.communicate()
    for pid in (run.pid, worker.process.pid, *descendants(worker.process.pid)):
        shown[f"ps {pid}"] = command_line(pid)
    ask("status", "--json", status=0)
    shown["report"], shown["run"] = run.communicate(timeout=PATIENCE)
    (report,) = [node for node in json.loads(shown["report"])["nodes"] if node["name"] == "there"]
    assert report["failed"] == {"failed": 1, "lost": 1, "timeout": 1}
    assert TOKEN in (tmp_path / "diary").read_text(), "the node had it"
    (tmp_path / "diary").unlink()

    listed = ask("dead", "list", "pipeline.json", "--json", status=0)
    for letter in json.loads(listed)["letters"]:
        ask("dead", "show", "pipeline.json", letter["name"], status=0)
    ask("check", "pipeline.json", "--live", status=0)
    ask("graph", "pipeline.json", status=0)
    ask("status", status=0)
    said = ask("check", "pipeline.json", "--live", status=2, CELERYPIPE_KEYS="another-key-of-signatures")
    assert "has other keys" in said
    ask("run", "pipeline.json", status=2, CELERYPIPE_KEYS="another-key-of-signatures")
    wrong = url.replace(PASSWORD, f"wrong-{PASSWORD}")
    assert "password" in ask("run", "pipeline.json", status=69, CELERYPIPE_REDIS_URL=wrong)
    definition(tmp_path, nmae=TOKEN)
    assert "did you mean 'name'" in ask("run", "pipeline.json", status=2)
    definition(tmp_path, seconds="$JT_ENV_TOKEN")
    assert "is no float" in ask("run", "pipeline.json", status=2)

    send_task(url, "tests.nodes.remote.Trial", QUEUE, 1)
    worker.wait_for_text("is a node of celerypipe, not a function")
    shown["worker"], shown["presence"] = worker.text(), str(worker.presences())
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            shown[str(path)] = path.read_text(errors="replace")
    for secret in (PASSWORD, KEY, TOKEN):
        found = {
            place: text[max(0, text.index(secret) - 200) :][:300] for place, text in shown.items() if secret in text
        }
        assert not found
