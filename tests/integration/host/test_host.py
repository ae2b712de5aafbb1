"""``celerypipe host`` itself: what it refuses, what it survives, and what survives it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from celerypipe import HostError, Manager, Message, Runner
from celerypipe.celery.item import Items
from celerypipe.host.hosted import HostedWorkers
from celerypipe.host.records import TASK, Request, WorkerSet, want, written
from celerypipe.redis.connection import Client
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import RedisServer, eventually
from tests.servers.extent import at_length
from tests.servers.host import LIST, RunningHost, launch_host, running_host
from tests.servers.processes import alive, children_of, descendants
from tests.servers.proxy import Proxy
from tests.servers.worker import KEY, SIGNED

#: A worker that dies as soon as it has booted.
DIES = "import os, threading\nthreading.Timer(0.1, os._exit, [9]).start()\n"


@pytest.fixture(scope="module")
def lasting(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """One for several tests, which leave it as it was."""
    with running_host(tmp_path_factory.mktemp("lasting"), redis_url) as host:
        yield host


def _kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_a_second_host_of_one_name_ends_with_a_sentence(tmp_path: Path, redis_url: str) -> None:
    with running_host(tmp_path / "first", redis_url) as first, Manager(redis_url) as manager:
        second = launch_host(tmp_path / "second", redis_url, name=first.name, wait=False)
        assert second.wait_for_end() == os.EX_CONFIG
        assert f"another host is called {first.name}, on " in second.text()
        assert "start it with another --name" in second.text()
        third = launch_host(tmp_path / "first", redis_url, name=first.name, wait=False)
        assert third.wait_for_end() == 2
        assert f"a host called {first.name} runs on this machine already" in third.text()
        assert manager.host_status(first.name).state == "up"


def test_a_request_without_a_signature_starts_nothing(
    tmp_path: Path, redis_url: str, redis_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_host(tmp_path, redis_url, environment=SIGNED) as host:
        with Manager(redis_url) as stranger, pytest.raises(HostError, match="set CELERYPIPE_KEYS here as it is there"):
            stranger.hosts[host.name].start("hgpu")
        request = Request("start", 2**50, WorkerSet(queue="hgpu"))
        item = Items().item(TASK, [written(request, host.name, None)], queue=f"host.{host.name}", shown="")
        redis_client.lpush(f"host.{host.name}", item)
        host.wait_for_text("a request without a signature of ours was refused: set CELERYPIPE_KEYS where it came from")
        assert not redis_client.exists(redis_client.names.wanted(host.name))
        redis_client.lpush(f"host.{host.name}", Items().item("os.system", ["ls"], queue="x", shown=""))
        monkeypatch.setenv("CELERYPIPE_KEYS", KEY)
        with Manager(redis_url) as manager:
            workers = manager.hosts[host.name].start("hgpu")
            assert [each.state for each in workers.status()] == ["up"]


#: What is beyond its list, or no set of workers at all.
BEYOND: list[dict[str, object]] = [
    {"queue": "hgpu", "id": "../../gone"},
    {"queue": "hgpu", "id": "00000001", "pool": "os:system"},
    {"queue": "io", "id": "00000002"},
    {"queue": "hgpu", "id": "00000003", "count": 3},
    {"queue": "hgpu", "id": "00000004", "count": -1},
    {"queue": "hgpu", "id": "00000005", "slots": "many"},
]


def test_what_a_stranger_wants_by_writing_to_redis_is_held_to_the_list(
    lasting: RunningHost, redis_client: Client
) -> None:
    key, before = redis_client.names.wanted(lasting.name), descendants(lasting.process.pid)
    for wanted in BEYOND:
        redis_client.hset(key, str(wanted["id"]), json.dumps(wanted))
    seen = redis_client.hincrby(key, "version", 1)
    with Manager(lasting.url) as manager:
        eventually(lambda: manager.hosts[lasting.name].status().version >= seen, "its look at that")
        assert manager.hosts[lasting.name].status().workers == []
        probe = manager.hosts[lasting.name].start("hcpu")
        assert [each.queue for each in manager.hosts[lasting.name].status().workers] == ["hcpu"]
        probe.stop()
    assert descendants(lasting.process.pid) == before
    redis_client.delete(key)


@pytest.mark.parametrize("seconds", [0, pytest.param(30, marks=at_length)])
def test_what_was_asked_of_a_host_that_stood_still_is_not_done_afterwards(
    tmp_path: Path, redis_url: str, seconds: int
) -> None:
    with running_host(tmp_path, redis_url) as host, Manager(redis_url) as manager:
        workers = manager.hosts[host.name].start("hgpu", 1, keep=True)
        (before,) = workers.status()
        everything = [host.process.pid, *descendants(host.process.pid)]
        for pid in everything:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(HostError, match=r"did not answer within 2\.\d s, and will not do it|nothing was heard"):
                manager.hosts[host.name].start("hgpu", 1)
            eventually(lambda: manager.host_status(host.name).state == "gone", "its silence")
            with pytest.raises(HostError, match="nothing was heard from it: its machine or the network is down"):
                manager.hosts[host.name].start("hgpu", 1)
            time.sleep(seconds)  # it is stopped for so long
        finally:
            for pid in everything:
                with suppress(ProcessLookupError):  # a heartbeat that was stopped is replaced by another
                    os.kill(pid, signal.SIGCONT)
        eventually(lambda: manager.host_status(host.name).state == "up", "its return")
        probe = manager.hosts[host.name].start("hcpu", 1)  # behind whatever waited
        wanted = sorted((each.queue, each.count) for each in manager.hosts[host.name].status().sets)
        assert wanted == [("hcpu", 1), ("hgpu", 1)]
        probe.stop()
        assert [(each.pid, each.state) for each in workers.status()] == [(before.pid, "up")]


def test_with_a_host_its_workers_end_and_when_it_comes_back_they_do(tmp_path: Path, redis_url: str) -> None:
    host = launch_host(tmp_path, redis_url)
    with Manager(redis_url) as manager:
        kept = manager.hosts[host.name].start("hgpu", keep=True)
        (before,) = kept.status()
        _kill(host.pid)
        eventually(lambda: not alive(before.pid), "the end of its worker")
        eventually(lambda: manager.host_status(host.name).state == "gone", "word of it")
        assert "its process ended" in manager.host_status(host.name).why
        with pytest.raises(HostError, match=f"host {host.name}: its process ended.*celerypipe host --name {host.name}"):
            kept.status()
        host.wait_for_end()
        with running_host(tmp_path, redis_url, name=host.name):
            eventually(lambda: [each.state for each in kept.status()] == ["up"], "another worker")
            kept.stop()


def _gpus_seen(workers: HostedWorkers) -> dict[str, str]:
    """What a host tells of its workers' GPUs, and what each of them has in its environment."""
    lines = {each.device: Path(f"/proc/{each.pid}/environ").read_text().split("\0") for each in workers.status()}
    found = {device: [line for line in each if line.startswith("CUDA_VIS")] for device, each in lines.items()}
    return {device: said.partition("=")[2] for device, (said,) in found.items()}


def test_detached_workers_outlive_their_host_and_are_its_own_again(tmp_path: Path, redis_url: str) -> None:
    with_gpus = LIST.replace("most = 2\n", 'most = 2\ndevices = [3, "4"]\n')
    host = launch_host(tmp_path, redis_url, allowed=with_gpus)
    with Manager(redis_url) as manager:
        workers = manager.hosts[host.name].start("hgpu", 2, detach=True)
        others = manager.hosts[host.name].start("hcpu", 1, keep=True)
        before = sorted(each.pid for each in workers.status())
        ended = others.status()[0].pid
        _kill(host.pid)
        host.wait_for_end()
        eventually(lambda: not alive(ended), "the end of who was not detached")
        assert all(map(alive, before))
        with running_host(tmp_path, redis_url, name=host.name, allowed=with_gpus) as again:
            eventually(lambda: [each.state for each in workers.status()] == ["up", "up"], "both of them")
            assert sorted(each.pid for each in workers.status()) == before
            assert _gpus_seen(workers) == {"3": "3", "4": "4"}
            _kill(before[0])
            eventually(lambda: before[0] not in [each.pid for each in workers.status()], "its end")
            eventually(lambda: [each.state for each in workers.status()] == ["up", "up"], "another")
            assert _gpus_seen(workers) == {"3": "3", "4": "4"}, "who starts again has the GPU that it had"
            workers.stop()
            others.stop()
            assert not any(map(alive, before))
            assert again.process.poll() is None


def test_a_worker_that_dies_again_and_again_is_given_up_and_restarted_by_hand(tmp_path: Path, redis_url: str) -> None:
    folder = tmp_path / "dying"
    folder.mkdir()
    (folder / "dies.py").write_text(DIES)
    (folder / "worker_configs").mkdir()
    (folder / "worker_configs" / "hgpu.toml").write_text('imports = ["dies"]\nworker_pool = "solo"\n')
    with running_host(folder, redis_url) as host, Manager(redis_url) as manager:
        workers = manager.hosts[host.name].start("hgpu", wait=False)
        eventually(lambda: [each.state for each in workers.status()] == ["failed"], "the end of its attempts")
        (state,) = workers.status()
        assert (state.starts, state.why) == (4, "exit status 9")
        host.wait_for_text("given up: it was started again 3 times within 60 s; mend the cause, then restart it")
        with pytest.raises(HostError, match="exit status 9; it was given up"):
            workers.wait(5)
        (folder / "dies.py").write_text("")
        workers.restart()
        assert [each.state for each in workers.status()] == ["up"]


@at_length
def test_a_restart_by_hand_does_not_wait_for_the_delay(tmp_path: Path, redis_url: str) -> None:
    slow = LIST.replace("delay = 0.05", "delay = 600\nmax_delay = 600")
    with running_host(tmp_path, redis_url, allowed=slow) as host, Manager(redis_url) as manager:
        workers = manager.hosts[host.name].start("hgpu")
        _kill(workers.status()[0].pid)
        eventually(lambda: [each.state for each in workers.status()] == ["waiting"], "its end")
        workers.restart()
        assert [(each.state, each.starts) for each in workers.status()] == [("up", 2)]


def test_what_is_wanted_outlives_the_data_of_redis(tmp_path: Path, private_redis: RedisServer) -> None:
    url = private_redis.url
    with running_host(tmp_path, url) as host, Manager(url) as manager:
        first = manager.hosts[host.name].start("hgpu", keep=True)
        (before,) = first.status()
        os.kill(host.pid, signal.SIGSTOP)
        client = manager.client
        client.flushall()
        second = WorkerSet("hcpu")  # somebody asked before the host has noticed
        want(client, host.name, second, 2**50, None)
        os.kill(host.pid, signal.SIGCONT)

        def there() -> list[tuple[str, str]]:
            record = manager.host_status(host.name).record
            return sorted((each.queue, each.state) for each in record.workers) if record is not None else []

        eventually(lambda: there() == [("hcpu", "up"), ("hgpu", "up")], "both of them")
        assert before.pid in [each.pid for each in first.status()]


def test_a_worker_that_dies_while_redis_is_away_is_told_when_that_is_back(
    tmp_path: Path, private_redis: RedisServer
) -> None:
    with running_host(tmp_path, private_redis.url) as host, Manager(private_redis.url) as manager:
        workers = manager.hosts[host.name].start("hgpu", keep=True)
        (before,) = workers.status()
        private_redis.stop()
        host.wait_for_text("trying again")
        _kill(before.pid)
        host.wait_for_text("ended: killed by SIGKILL")
        private_redis.start()
        eventually(lambda: manager.host_status(host.name).state == "up", "its return")
        eventually(lambda: before.pid in [each.pid for each in manager.ends()], "word of it")
        eventually(lambda: [each.state for each in workers.status()] == ["up"], "another, as it was wanted")


def test_a_worker_hands_back_what_it_has_when_it_is_to_end_at_once(
    tmp_path: Path, redis_url: str, redis_client: Client
) -> None:
    gate = tmp_path / "gate"
    with running_host(tmp_path, redis_url) as host, Manager(redis_url) as manager:
        first = manager.hosts[host.name].start("hgpu")
        gated = warped("tests.nodes.remote.Gate", "hgpu", timeout=60.0)
        reading = Reading(Runner(redis_url).stream(gated, [Message(str(gate))]))
        eventually(lambda: [held for each in first.status() for held in each.held], "work in hand")
        first.stop(drain=False)
        assert not reading.out
        assert "SIGKILL" not in host.text()
        gate.touch()
        manager.hosts[host.name].start("hgpu")
        assert reading.payloads() == [str(gate)]


def test_told_to_end_it_ends_its_workers_first(tmp_path: Path, redis_url: str) -> None:
    host = launch_host(tmp_path, redis_url)
    with Manager(redis_url) as manager:
        manager.hosts[host.name].start("hcpu", 3, keep=True)
        below = descendants(host.process.pid)
        host.process.send_signal(signal.SIGINT)
        assert host.wait_for_end() == 0
        assert not any(map(alive, below))
        assert manager.host_status(host.name).over


def test_the_list_of_a_host_is_checked_before_anything_starts(tmp_path: Path, redis_url: str) -> None:
    host = launch_host(tmp_path, redis_url, allowed=LIST.replace("most = 2", "msot = 2"), wait=False)
    assert host.wait_for_end() == 2
    assert "host.toml:3: unknown key 'msot' in [queues.hgpu]; did you mean 'most'?" in host.text()
    other = launch_host(tmp_path, redis_url, allowed=f"{LIST}\n[queues.io]\n", wait=False)
    assert other.wait_for_end() == 2
    assert "queue 'io': there is no worker_configs/io.toml and no tasks/io.py" in other.text()
    strange = launch_host(tmp_path, redis_url, name="a b", wait=False)
    assert strange.wait_for_end() == 2
    assert "--name: 'a b' is no name for a host" in strange.text()
    assert not children_of(strange.process.pid)


def test_a_host_is_seen_by_celery(tmp_path: Path, redis_url: str) -> None:
    from celerypipe.celery.application import make_app

    with running_host(tmp_path, redis_url) as host:
        app = make_app({"CELERYPIPE_REDIS_URL": redis_url})
        there = eventually(lambda: _answers(app, host), "its answer to a ping")
        assert [answer["ok"] for answer in there] == ["pong"]
        app.control.shutdown(destination=[f"host.{host.name}@{os.uname().nodename}"])
        assert host.wait_for_end() == 0


def _answers(app: object, host: RunningHost) -> list[dict[str, str]]:
    found = app.control.ping(timeout=2.0, destination=[f"host.{host.name}@{os.uname().nodename}"])  # type: ignore[attr-defined]
    return [answer for each in found for answer in each.values()]


def test_workers_come_with_the_work_and_go_after_it(tmp_path: Path, redis_url: str) -> None:
    scaled = LIST.replace("most = 2", "most = 2\nautoscale = { max = 2, target_wait = 0.3, cooldown = 1.5 }")
    with running_host(tmp_path, redis_url, allowed=scaled) as host, Manager(redis_url) as manager:

        def states() -> list[str]:
            return [each.state for each in manager.hosts[host.name].status().workers]

        assert states() == []
        with pytest.raises(HostError, match="2 are for `autoscale`, 1 were asked for"):
            manager.hosts[host.name].start("hgpu")
        nap = warped("tests.nodes.remote.Nap", "hgpu", timeout=60.0)
        reading = Reading(Runner(redis_url).stream(nap, [Message(1.5) for _ in range(6)]))
        eventually(lambda: states() == ["up", "up"], "two workers")
        assert reading.payloads() == [1.5] * 6
        eventually(lambda: states() == [], "none of them")
        assert "queue hgpu: 0 workers in place of" in host.text()
        assert [each for each in manager.ends() if each.host == host.name and not each.asked] == []


@at_length
@pytest.mark.parametrize("who", ["the host", "the run", "both"])
def test_a_host_and_a_run_far_from_redis_work_as_near_ones(
    tmp_path: Path, private_redis: RedisServer, who: str
) -> None:
    with Proxy(private_redis.folder / "redis.sock") as proxy:
        proxy.distance = 0.03  # 60 ms there and back
        there, here = (private_redis.url if who == near else proxy.url for near in ("the run", "the host"))
        with running_host(tmp_path, there) as host, Manager(here) as manager:
            workers = manager.hosts[host.name].start("hgpu", 2)
            began = time.monotonic()
            reading = Reading(Runner(here).stream(warped("tests.nodes.remote.Echo", "hgpu"), _numbers(500)))
            assert reading.payloads() == list(range(500))
            print(f"500 messages, {who} 60 ms from Redis: {time.monotonic() - began:.1f} s")
            assert manager.host_status(host.name).state == "up"
            assert [each.starts for each in workers.status()] == [1, 1]
            workers.stop()
            with pytest.raises(HostError, match="starts no workers of queue 'io'"):
                manager.hosts[host.name].start("io")


def _numbers(count: int) -> list[Message]:
    return [Message(number) for number in range(count)]
