"""``celerypipe health``: told by what real workers say of themselves, light, and in time."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from celerypipe import Message, Runner
from celerypipe.cli.commands import main
from celerypipe.cli.health import Health, in_time
from celerypipe.errors import RedisUnavailable
from celerypipe.mailbox import protocol
from celerypipe.mailbox.protocol import SPOKEN, Spoken
from celerypipe.mailbox.status import read_status
from celerypipe.redis import keys
from celerypipe.redis.address import DEFAULT_ADDRESS
from celerypipe.redis.connection import Client
from celerypipe.redis.url import read_address
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import ROOT, StartWorker, eventually

#: What it does without, and what it needs none of to be quick.
HEAVY = {"celery", "kombu", "numpy", "pydantic", "rich", "yaml", "cv2", "fsspec", "httpx", "websockets"}


def health(url: str, *words: str) -> Result:
    """``celerypipe health`` in this process."""
    return CliRunner().invoke(main, ["health", "--redis", url, *words])


@pytest.fixture
def far(redis_client: Client) -> Iterator[dict[str, Any]]:
    """What a worker says of itself that lives on another machine."""
    record = {
        "id": "far.7.ab",
        "host": "far",
        "pid": 7,
        "pool": "prefork",
        "slots": 4,
        "queues": ["far-away"],
        "marks": {},
        "versions": {},
        "protocol": list(SPOKEN),
    }
    redis_client.set(keys.USUAL.heartbeat("far", "ab"), " 7 ")
    for each in (keys.USUAL.workers, keys.USUAL.serving("far-away")):
        redis_client.zadd(each, {"far.7.ab": int(redis_client.now() * 1000)})
    redis_client.set(keys.USUAL.presence("far.7.ab"), json.dumps(record))
    yield record
    redis_client.zrem(keys.USUAL.workers, "far.7.ab")
    redis_client.delete(keys.USUAL.serving("far-away"))
    redis_client.delete(keys.USUAL.presence("far.7.ab"), keys.USUAL.heartbeat("far", "ab"))


def test_a_busy_solo_worker_is_well_and_a_killed_one_is_not(
    start_doomed: StartWorker, redis_url: str, redis_client: Client, tmp_path: Path
) -> None:
    worker = start_doomed("well", pool="solo", config=CONFIG, arguments=["-n", "another@name"])
    gate = tmp_path / "open"
    held = warped("tests.nodes.remote.Gate", "well")
    reading = Reading(Runner(redis_url).stream(held, [Message(str(gate))]))
    eventually(lambda: any(each.busy for each in read_status(redis_client).workers), "a busy worker")

    done = health(redis_url, "-Q", "well", "--here")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "well: 1 worker, 1 slot\n", "")
    said = json.loads(health(redis_url, "-Q", "well", "--json").stdout)
    assert said == {
        "healthy": True,
        "why": "",
        "redis": f"{redis_url}",
        "queues": {"well": {"workers": 1, "slots": 1}},
    }
    assert "well" in health(redis_url).stdout.partition(":")[0].split(", "), "of any queue"

    gate.touch()
    assert reading.payloads() == [str(gate)]
    worker.kill()
    eventually(lambda: health(redis_url, "-Q", "well").exit_code == 1, "word of its end")
    done = health(redis_url, "-Q", "well")
    assert done.stdout == ""
    assert done.stderr.startswith("well: no live worker")
    assert done.stderr.endswith(f"; start one: {read_address(redis_url).worker_command('well')}\n")
    said = json.loads(health(redis_url, "-Q", "well", "--json").stdout)
    assert (said["healthy"], said["queues"]) == (False, {"well": {"workers": 0, "slots": 0}})


def test_the_worker_of_another_machine_does_not_hide_that_the_one_here_is_dead(
    redis_url: str, far: dict[str, Any]
) -> None:
    done = health(redis_url, "-Q", "far-away")
    assert (done.exit_code, done.stdout) == (0, "far-away: 1 worker, 4 slots\n")
    done = health(redis_url, "-Q", "far-away", "--here")
    assert done.exit_code == 1
    assert f"far-away: no live worker on this machine, {socket.gethostname()}, but on far; start one" in done.stderr
    done = health(redis_url, "-Q", "far-away,farther")
    assert done.exit_code == 1, "each of them is asked for"
    assert done.stderr.startswith("farther: no live worker (there are workers of ")


def test_the_workers_of_another_namespace_are_none_and_named(
    redis_url: str, far: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERYPIPE_NAMESPACE", "another")
    done = health(redis_url, "-Q", "far-away")
    assert done.exit_code == 1
    assert "far-away: no live worker in this namespace, but in namespace 'celerypipe': " in done.stderr
    monkeypatch.setenv("CELERYPIPE_NAMESPACE", done.stderr.partition("CELERYPIPE_NAMESPACE=")[2].split()[0])
    assert health(redis_url, "-Q", "far-away").exit_code == 0, "the cure"


def test_a_worker_that_is_not_understood_is_none(
    redis_url: str, redis_client: Client, far: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERYPIPE_KEYS", "a key of sixteen bytes and more")
    done = health(redis_url, "-Q", "far-away")
    assert done.exit_code == 1
    assert "far-away: the worker on far (pid 7) has no keys" in done.stderr
    monkeypatch.delenv("CELERYPIPE_KEYS")
    monkeypatch.setattr(protocol, "SPOKEN", Spoken(9, 8))
    done = health(redis_url, "-Q", "far-away")
    assert done.exit_code == 1
    assert "speaks protocol 1, and this machine protocol 9: update celerypipe on far" in done.stderr


def test_a_redis_that_is_away_or_stands_still_is_said_in_time_and_without_its_password() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"redis://:s3cret@127.0.0.1:{silent.getsockname()[1]}/0"
        done = health(url, "--timeout", "0.2", "-Q", "gpu,cpu")
        assert done.exit_code == 1
        assert done.stderr.count("does not answer") == 1
    away = health(url, "--json")
    assert away.exit_code == 1
    assert "Redis is not there" in json.loads(away.stdout)["why"]
    for text in (done.output, away.output):
        assert "s3cret" not in text
        assert url.replace("s3cret", "***") in text


def test_it_ends_in_time_whatever_it_waits_for() -> None:
    """Such as a name server, which no timeout of a connection ends."""
    never = threading.Event()
    with pytest.raises(RedisUnavailable, match=r"does not answer within 0\.05 s: redis://localhost:6379/0"):
        in_time(0.05, DEFAULT_ADDRESS, lambda _: [Health("", int(never.wait()))])
    never.set()


def test_each_worker_of_the_compose_file_is_asked_for() -> None:
    text = (ROOT / "compose.yaml").read_text()
    asked = re.findall(r'\["CMD", "celerypipe", "health", "--here", "--queue", "(\w+)"\]', text)
    assert asked == re.findall(r"celery -A celerypipe worker -Q (\w+)", text)
    assert asked


@pytest.mark.parametrize("words", [("-Q", ""), ("-Q", "a,,b"), ("--timeout", "nan"), ("--timeout", "0")])
def test_what_cannot_be_asked_is_said(redis_url: str, words: tuple[str, ...]) -> None:
    done = health(redis_url, *words)
    assert done.exit_code == 2
    assert f"Invalid value for '{'--queue' if words[0] == '-Q' else '--timeout'}'" in done.stderr


def test_it_imports_nothing_heavy(redis_url: str, far: dict[str, Any]) -> None:
    program = (
        "import contextlib, sys\n"
        "from celerypipe.cli import main\n"
        f"with contextlib.suppress(SystemExit): main(['health', '-Q', 'far-away', '--redis', {redis_url!r}])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    said, modules = done.stdout.splitlines()
    assert said == "far-away: 1 worker, 4 slots"
    assert not HEAVY & set(modules.split())
