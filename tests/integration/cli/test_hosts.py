"""``celerypipe hosts`` and ``celerypipe worker start | stop | …``, against a real host."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, Runner
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import ROOT, eventually
from tests.servers.command import begin, celerypipe
from tests.servers.extent import at_length
from tests.servers.host import RunningHost, launch_host, running_host


@pytest.fixture(scope="module")
def host(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    with running_host(tmp_path_factory.mktemp("host"), redis_url) as found:
        yield found


def _said(host: RunningHost, *words: object, status: int = 0) -> str:
    done = celerypipe(*words, CELERYPIPE_REDIS_URL=host.url)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if not status else done.stderr


def _listed(host: RunningHost) -> list[dict[str, Any]]:
    found = json.loads(_said(host, "worker", "ls", "--json"))["workers"]
    return [each for each in found if each["host"] == host.name]


def test_workers_are_started_listed_scaled_restarted_and_stopped_by_commands(host: RunningHost) -> None:
    own = _said(host, "worker", "start", "--host", host.name, "-Q", "hcpu", "--count", 2).strip()
    assert [(each["set"], each["state"]) for each in _listed(host)] == [(own, "up")] * 2
    assert f"{own} 1" in _said(host, "worker", "ls")
    assert "hcpu 2/4" in _said(host, "hosts", host.name)
    _said(host, "worker", "scale", own[:4], 1)
    (before,) = _listed(host)
    _said(host, "worker", "restart", own)
    (after,) = _listed(host)
    assert after["pid"] != before["pid"]
    assert "once they are through with what they have in hand" in _said(host, "worker", "drain", f"{host.name}/hcpu")
    assert _listed(host) == []
    assert f"no workers '{own}' are kept by a host that is up" in _said(host, "worker", "stop", own, status=2)


@at_length
def test_who_finishes_a_message_can_be_told_to_end_now(host: RunningHost, tmp_path: Path) -> None:
    own = _said(host, "worker", "start", "--host", host.name, "-Q", "hgpu").strip()
    gated = warped("tests.nodes.remote.Gate", "hgpu", timeout=60.0)
    reading = Reading(Runner(host.url).stream(gated, [Message(str(tmp_path / "gate"))]))
    eventually(lambda: [each for each in _listed(host) if each["held"]], "work in hand")
    refused = _said(host, "worker", "stop", own, "--timeout", 0.1, status=1)
    assert "is stopping" in refused
    assert "are told to end already" in _said(host, "worker", "stop", own, status=1)
    _said(host, "worker", "stop", own, "--now")
    assert _listed(host) == []
    (tmp_path / "gate").touch()
    again = _said(host, "worker", "start", "--host", host.name, "-Q", "hgpu").strip()
    assert len(reading.payloads()) == 1
    _said(host, "worker", "stop", again)


@at_length
def test_workers_that_come_with_the_work_are_left_to_their_list(tmp_path: Path, redis_url: str) -> None:
    scaled = "[queues.hgpu]\nautoscale = { min = 1, max = 1 }\n"
    with running_host(tmp_path, redis_url, allowed=scaled) as own:
        for which in ("auto-hgpu", f"{own.name}/hgpu"):
            assert "come and go with the work: change `autoscale`" in _said(own, "worker", "stop", which, status=2)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["worker", "start", "-Q", "io"], 2, "no host that is up may start workers of queue 'io'"),
        (["worker", "start", "-Q", "hgpu", "--count", 3], 1, "may run 2 workers of queue 'hgpu'"),
        (["worker", "start"], 2, "Missing option '--queue'"),
        (["worker", "start", "-Q", "hgpu", "--preload", "a.B={"], 2, "--preload a.B: '{' is no JSON"),
        (["worker", "start", "-Q", "hgpu", "--preload", "a.B=3"], 2, "the configuration must be an object, not 3"),
        (["worker", "start", "-Q", "hgpu", "--host", "nowhere"], 1, "no host of that name was ever seen"),
        (["worker", "stop", "nothing"], 2, "no workers 'nothing' are kept by a host that is up"),
        (["worker", "scale", "nothing", "-1"], 2, ""),
    ],
)
def test_what_cannot_be_done_is_said(host: RunningHost, words: list[object], status: int, said: str) -> None:
    assert said in _said(host, *words, status=status)
    assert _listed(host) == []


def test_hosts_that_are_not_up_are_shown_with_reason_and_cure(tmp_path: Path, redis_url: str) -> None:
    gone = launch_host(tmp_path, redis_url)
    assert "up" in _said(gone, "hosts")
    gone.stop()
    assert f"{gone.name}: its process ended; see its log on " in _said(gone, "hosts")
    (found,) = [each for each in json.loads(_said(gone, "hosts", "--json")) if each["name"] == gone.name]
    assert (found["state"], found["record"]["queues"]) == ("gone", {"hcpu": 4, "hgpu": 2})
    done = celerypipe("hosts", gone.name, "nowhere", CELERYPIPE_REDIS_URL=redis_url)
    assert done.returncode == 1
    assert "nowhere: no host of that name was ever seen in this Redis" in done.stdout.replace("\n", " ")


def test_an_empty_redis_says_what_to_do(private_redis: Any) -> None:
    done = celerypipe("hosts", "--redis", private_redis.url)
    assert done.returncode == 0
    assert "no host was ever seen" in done.stdout
    assert "on a machine that is to run workers: celerypipe host" in done.stdout
    other = celerypipe("worker", "start", "-Q", "hgpu", "--redis", private_redis.url)
    assert other.returncode == 1
    assert "no host is up" in other.stderr


def test_a_host_writes_the_unit_that_starts_it(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "hgpu.py").touch()
    (tmp_path / "host.toml").write_text("[queues.hgpu]\nmost = 2\n")
    done = celerypipe("host", "--name", "box", "--print-unit", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"WorkingDirectory={tmp_path}" in done.stdout
    assert f"ExecStart={sys.executable} -m celerypipe host --name box --config {tmp_path}/host.toml" in done.stdout
    assert celerypipe("host", "--check", cwd=tmp_path).stdout == "hgpu: at most 2\n"
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "celerypipe-host-box.service"
    unit.write_text(done.stdout)
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "celerypipe-host-box" not in checked.stdout + checked.stderr


def test_the_example_takes_its_seven_steps(redis_url: str, tmp_path: Path) -> None:
    folder = ROOT / "examples" / "hosts"
    around = {"CELERYPIPE_REDIS_URL": redis_url, "XDG_STATE_HOME": str(tmp_path)}
    example = begin("host", "--name", "box-example", "--config", folder / "host.toml", **around)
    try:
        eventually(lambda: "asked on queue" in example.err.read_text(), "the host")
        done = subprocess.run(
            [sys.executable, folder / "steps.py", "box-example"],
            env={"PYTHONPATH": str(ROOT), **around},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr + example.err.read_text()
        assert done.stdout.splitlines()[1:] == ["hold sent 0", "hold sent 1", "hold sent 2", "hold is stopped"]
    finally:
        example.process.terminate()
        example.finish()
