"""The tutorial under the users of ``docs/redis-users.acl``, and what each of them may not do; secrets stay secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from celerypipe import ConfigError, Manager, Message, NoWorker, Runner, file
from celerypipe.redis.connection import Client, connect
from tests.nodes import called, remote
from tests.runs.metrics import outcomes
from tests.runs.pipelines import warped
from tests.runs.reading import results
from tests.runs.tutorial import COUNT, QUICK, Tutorial
from tests.servers import PATIENCE, ROOT, RedisServer, RunningWorker, StartWorker, eventually
from tests.servers.command import celerypipe, start
from tests.servers.extent import at_length
from tests.servers.flower import running_flower
from tests.servers.host import running_host
from tests.servers.processes import command_line, descendants

USERS = ROOT / "docs" / "redis-users.acl"
#: Written as in a URL; the percent sign is not to be taken for text.
PASSWORDS = {"runner": "r-p4ssw0rd", "worker": "w-p4ssw0rd%21", "dashboard": "d-p4ssw0rd", "manager": "m-p4ssw0rd"}


class Guarded:
    """A Redis that nobody enters without a password, and its addresses for each user."""

    def __init__(self, server: RedisServer, admin: Client) -> None:
        self.server = server
        self.admin = admin

    def url(self, user: str) -> str:
        return self.server.url.replace("unix://", f"unix://{user}:{PASSWORDS[user]}@")

    def client(self, user: str) -> Client:
        return connect(self.url(user))


@pytest.fixture
def guarded(private_redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    """``param``: a namespace whose users these are, as docs/security.md says it."""
    admin = connect(private_redis.url)
    admin.ping()
    admin.execute_command("ACL", "LOG", "RESET")
    for line in USERS.read_text().splitlines():
        _, name, *rules = line.replace("~QUEUE", "~remote ~calls ~hgpu ~hcpu").split()
        password = PASSWORDS.get(name, "").replace("%21", "!")
        rules = [f">{password}" if rule.startswith(">") else rule for rule in rules]
        if namespace := getattr(request, "param", ""):
            channels = [f"&celerypipe@{namespace}:celery:{rule[1:]}" for rule in rules if rule[0] == "&"]
            rules = [*(rule for rule in rules if rule[0] not in "~&"), f"~celerypipe@{namespace}:*", *channels]
        admin.execute_command("ACL", "SETUSER", name, *(rules if name != "default" else [">4dm1n"]))
    guard = Guarded(private_redis, admin)
    yield guard
    admin.close()


@pytest.fixture
def flower(guarded: Guarded, tmp_path: Path) -> Iterator[httpx.Client]:
    with running_flower(guarded.url("dashboard"), tmp_path) as client:
        yield client


def refused(guarded: Guarded) -> list[str]:
    """What Redis refused so far: user, and the command or key."""
    log: Any = guarded.admin.execute_command("ACL", "LOG", 100)
    found = [each if isinstance(each, dict) else dict(zip(each[::2], each[1::2], strict=True)) for each in log]
    entries = [" ".join(str(entry[name]) for name in sorted(entry) if name in KNOWN) for entry in map(_texts, found)]
    # CLIENT SETINFO: Redis before 7.2 does not know it, so that it cannot be in the file; redis-py does without.
    return [entry for entry in entries if not entry.startswith("toplevel client")]


KNOWN = ("username", "reason", "object", "context")


def _texts(entry: dict[Any, Any]) -> dict[str, str]:
    return {_text(key): _text(value) for key, value in entry.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def inspect(guarded: Guarded, question: str, *, timeout: int) -> subprocess.CompletedProcess[str]:
    """``celery inspect``, as the user of the dashboard."""
    words = ("-m", "celery", "-A", "celerypipe", "inspect", question, "--timeout", timeout)
    return start(*words, CELERYPIPE_REDIS_URL=guarded.url("dashboard")).finish()


@pytest.fixture
def worker(guarded: Guarded, start_worker: StartWorker) -> RunningWorker:
    found = start_worker("remote", url=guarded.url("worker"), concurrency=2, wait=False, fresh=True)
    found.wait_for_text("ready.")
    return found


@pytest.mark.parametrize("guarded", ["team-a"], indirect=True)
def test_the_users_of_a_namespace_do_with_what_begins_with_its_name(
    guarded: Guarded, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERYPIPE_NAMESPACE", "team-a")
    worker = start_worker("remote", url=guarded.url("worker"), concurrency=2, wait=False)
    worker.wait_for_text("ready.")
    url, pipeline = guarded.url("runner"), warped("passthrough_identity", "remote")
    assert results(Runner(url), pipeline, range(50)) == list(range(50))
    assert '{node="there",outcome="done",pipeline="test",queue="remote"} 50' in celerypipe("metrics", "-b", url).stdout
    with pytest.raises(NoWorker, match="no live worker serves queue 'elsewhere'"):
        results(Runner(url), warped("x", "elsewhere", limits={"on_no_worker": "fail"}), [1])
    asked = inspect(guarded, "ping", timeout=3)
    assert f"remote.{worker.process.pid}@" in asked.stdout, asked
    beyond = [each for each in refused(guarded) if "celerypipe:namespaces" not in each]
    assert beyond == []


def test_a_host_and_a_manager_do_with_the_documented_users_and_a_runner_cannot_ask_hosts(
    guarded: Guarded, tmp_path: Path
) -> None:
    with running_host(tmp_path, guarded.url("worker"), wait=False) as host:
        host.wait_for_text("asked on queue")
        with Manager(guarded.url("manager")) as manager:
            eventually(lambda: manager.host_status(host.name).state == "up", "the host")
            group = manager.hosts[host.name].start("hgpu", 1, pool="solo")
            node = group.create_node("tests.nodes.remote.Echo")
            node.start()
            assert node.ask(Message(1))[0].payload == 1
            assert results(Runner(guarded.url("runner")), warped("tests.nodes.remote.Echo", "hgpu"), [1]) == [1]
            assert list(group.logs())
            assert manager.nodes() == []
            group.stop()
            assert manager.ends() != []
        assert celerypipe("worker", "ls", CELERYPIPE_REDIS_URL=guarded.url("manager")).returncode == 0
        assert refused(guarded) == []
        with guarded.client("runner") as runner, pytest.raises(redis.exceptions.NoPermissionError):
            runner.lpush(f"host.{host.name}", "a request")


@at_length
@pytest.mark.timeout(120)
def test_the_tutorial_runs_under_the_documented_users_and_shows_no_secret(
    guarded: Guarded, worker: RunningWorker, flower: httpx.Client, tmp_path: Path
) -> None:
    copy = Tutorial(tmp_path / "tutorial")
    shown: list[str] = []
    server = start(copy.folder / "server.py", "--port", 0, "--count", COUNT)
    try:
        endpoint = server.wait_for("listening on ")
        definition = copy.change("pipeline.json", {**QUICK, "ws://127.0.0.1:8081": endpoint})
        run = subprocess.Popen(
            [sys.executable, "-m", "celerypipe", "run", str(definition), "--json"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CELERYPIPE_REDIS_URL": guarded.url("runner")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        shown += [command_line(pid) for pid in (run.pid, worker.process.pid, *descendants(worker.process.pid))]
        report, said = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, (said, refused(guarded), worker.text())
        assert server.finish().returncode == 0
    finally:
        server.kill()
    assert json.loads(report)["status"] == "done"
    assert outcomes(guarded.url("runner"), "remote", "1_proc") == {"done": COUNT}

    def known() -> Any:
        workers = flower.get("/api/workers", params={"refresh": "1"}).json()
        tasks = flower.get("/api/tasks", params={"taskname": "passthrough_identity"}).json()
        return (workers, tasks) if "passthrough_identity" in str(workers) and tasks else None

    shown += [report, said, worker.text(), str(eventually(known, "worker and activations in Flower"))]
    for question in ("conf", "stats", "report"):
        asked = inspect(guarded, question, timeout=2)
        assert asked.returncode == 0, asked.stderr
        shown += [asked.stdout, asked.stderr]
    shown += [file.read_text(errors="replace") for file in copy.folder.rglob("*.json")]
    shown += [str(worker.presences())]
    assert refused(guarded) == []
    for secret in ("r-p4ssw0rd", "w-p4ssw0rd", "d-p4ssw0rd"):
        assert [text[max(0, text.index(secret) - 200) :] for text in shown if secret in text] == []


@pytest.mark.parametrize(
    ("user", "command"),
    [
        *((user, ["CONFIG", "GET", "requirepass"]) for user in PASSWORDS),
        *((user, ["FLUSHALL"]) for user in PASSWORDS),
        *((user, ["KEYS", "*"]) for user in PASSWORDS),
        *((user, ["ACL", "LIST"]) for user in PASSWORDS),
        *((user, ["MODULE", "LIST"]) for user in PASSWORDS),
        *((user, ["SET", "somebody:else", "1"]) for user in PASSWORDS),
        *((user, ["EVAL", "return redis.call('GET', 'somebody:else')", "0"]) for user in PASSWORDS),
        ("runner", ["LRANGE", "unacked", "0", "-1"]),
        ("runner", ["PUBLISH", "/0.celery.pidbox", "{}"]),  # remote control: it could end every worker
        ("runner", ["BRPOP", "remote", "1"]),
        ("worker", ["LPUSH", "another-queue", "{}"]),
        ("dashboard", ["LPUSH", "remote", "{}"]),
        ("dashboard", ["XRANGE", "celerypipe:mailbox:run:node", "-", "+"]),
        ("dashboard", ["GET", "celerypipe:node:run:node"]),
    ],
)
def test_what_a_user_may_not_do(guarded: Guarded, user: str, command: list[str]) -> None:
    with (
        guarded.client(user) as client,
        pytest.raises(redis.ResponseError, match=r"(?i)NOPERM|permission|can.t access"),
    ):
        client.execute_command(*command)


def test_the_runner_may_do_all_that_the_result_cache_needs(guarded: Guarded, tmp_path: Path) -> None:
    large = {"type": "proc", "mark": "tests.nodes.remembered.Frames", "cache": True, "on_error": "skip"}
    nodes = [
        {"name": "src", "type": "source", "mark": "data_streamer", "configuration": {"count": 5, "rate": 0}},
        {"name": "frames", **large, "configuration": {"diary": str(tmp_path / "diary")}},
    ]
    body = {"name": "kept", "nodes": nodes, "links": [{"from": "src", "to": "frames"}]}
    (tmp_path / "kept.json").write_text(json.dumps({"version": "1", "pipeline": body}))

    def as_runner(*words: str) -> str:
        done = celerypipe(*words, cwd=tmp_path, CELERYPIPE_REDIS_URL=guarded.url("runner"))
        assert done.returncode == 0, (done.stdout, done.stderr, refused(guarded))
        return done.stdout

    reports = [json.loads(as_runner("run", "kept.json", "--json")) for _ in range(2)]
    assert [report["nodes"][1]["hits"] for report in reports] == [0, 5]
    assert "5 results" in as_runner("cache", "stats")
    assert "celerypipe_cache_items 10.0" in as_runner("metrics")
    assert "Frames" in as_runner("cache", "ls")
    assert "the input: another payload" in as_runner("cache", "explain", reports[0]["run"], "frames", "3")
    assert "deleted 5 results" in as_runner("cache", "rm", "tests.*", "--yes")
    assert refused(guarded) == []


def test_a_worker_that_may_not_do_what_it_needs_is_named_by_the_run(
    guarded: Guarded, start_worker: StartWorker
) -> None:
    """Each of its activations would be broken off, and the run would wait for ever."""
    guarded.admin.execute_command("ACL", "SETUSER", "worker", "-xreadgroup")
    worker = start_worker("remote", url=guarded.url("worker"), config=remote.CONFIG, wait=False)
    worker.wait_for_text("ready.")
    said: list[str] = []
    runner = Runner(guarded.url("runner"), on_event=said.append)
    with pytest.raises(ConfigError, match=r"does not allow this user .*xreadgroup"):
        list(runner.stream(warped("tests.nodes.remote.Echo", "remote"), [Message(1)]))
    assert any("cannot serve it: Redis does not allow this user what a pipeline needs" in text for text in said), said


def test_functions_are_called_under_the_documented_users(
    guarded: Guarded, start_worker: StartWorker, tmp_path: Path
) -> None:
    calls = start_worker("calls", url=guarded.url("worker"), concurrency=2, config=called.CONFIG, wait=False)
    calls.wait_for_text("ready.")
    (tmp_path / "file").write_bytes(b"content")
    begun = tmp_path / "begun"
    with Runner(guarded.url("runner"), shared_memory=False) as runner:
        large = runner.submit(called.large, 2)
        assert runner.submit(called.add, large, large).result(30)[0] == 4
        assert runner.submit(called.size, file(tmp_path / "file")).result(30) == 7
        assert [runner.submit(called.exact, "tuple", "").result(30) for _ in range(2)] == [(1, 2, 3)] * 2
        held = runner.submit(called.gate, str(begun), str(tmp_path / "never"))
        eventually(begun.exists, "the call at work")
        assert held.state == "running"
        assert held.cancel()
        assert runner.submit(called.same, 1).result(30) == 1
    assert refused(guarded) == []
