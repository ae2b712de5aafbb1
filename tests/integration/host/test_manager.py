"""The manager: workers of a real host are started, watched and stopped from where it sits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from celerypipe import ConfigError, HostError, Manager, Message, Runner
from celerypipe.host.hosted import HostedWorkers
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import eventually
from tests.servers.extent import LONG, at_length
from tests.servers.host import RunningHost, running_host
from tests.servers.processes import alive


@pytest.fixture(scope="module")
def host(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    with running_host(tmp_path_factory.mktemp("host"), redis_url) as found:
        yield found


@pytest.fixture
def manager(redis_url: str) -> Iterator[Manager]:
    with Manager(redis_url) as found:
        yield found


def test_a_host_tells_of_its_machine_its_queues_and_its_versions(host: RunningHost, manager: Manager) -> None:
    found = manager.hosts[host.name].status()
    assert found.machine.cores > 0
    assert found.machine.memory > found.machine.memory_used > 0
    assert found.queues == {"hcpu": 4, "hgpu": 2}
    assert set(found.versions) == {"celerypipe", "celery", "python"}
    assert abs(found.clock) < 5
    assert host.name in manager.hosts


def test_workers_are_started_scaled_restarted_and_stopped(host: RunningHost, manager: Manager) -> None:
    workers = manager.hosts[host.name].start("hcpu", 1)
    (first,) = workers.status()
    assert (first.state, first.queue, first.starts) == ("up", "hcpu", 1)
    workers.scale(2)
    assert sorted(each.number for each in workers.status()) == [0, 1]
    before = {each.pid for each in workers.status()}
    workers.restart()
    after = {each.pid for each in workers.status()}
    assert len(after) == 2
    assert not before & after
    workers.scale(1)
    assert len(workers.status()) == 1
    workers.stop()
    assert workers.status() == []
    assert not any(map(alive, before | after))


def test_a_run_is_served_by_workers_of_a_host_and_their_lines_are_read(
    host: RunningHost, manager: Manager, redis_url: str
) -> None:
    workers = manager.hosts[host.name].start("hgpu")
    (message,) = Runner(redis_url).stream(warped("tests.nodes.remote.Echo", "hgpu"), [Message(1)])
    assert message.meta["pid"] == workers.status()[0].pid
    assert any("ready" in line.text for line in workers.logs())
    assert [each.state for each in workers.status()] == ["up"], "a run that is over is no death"
    assert [each for each in manager.ends() if each.pid == workers.status()[0].pid] == []
    workers.stop()


def test_lines_are_followed_as_they_come(host: RunningHost, manager: Manager, redis_url: str) -> None:
    workers = manager.hosts[host.name].start("hgpu")
    lines = workers.logs(follow=True)
    next(lines)
    results = Runner(redis_url).stream(
        warped("tests.nodes.remote.Picky", "hgpu", configuration={"bad": []}), [Message(1)]
    )
    assert len(list(results)) == 1
    assert any(" succeeded in " in line.text for line in lines), "which is said after the first lines were read"
    workers.stop()


@at_length
def test_leaving_the_block_stops_what_it_started_and_the_host_stays(host: RunningHost, redis_url: str) -> None:
    with Manager(redis_url) as manager:
        workers = manager.hosts[host.name].start("hgpu", 2)
        pids = [each.pid for each in workers.status()]
        assert all(map(alive, pids))
    assert not any(map(alive, pids))
    assert host.process.poll() is None


def test_a_worker_that_dies_is_told_and_started_again(host: RunningHost, manager: Manager) -> None:
    workers = manager.hosts[host.name].start("hgpu")
    (first,) = workers.status()
    os.kill(first.pid, signal.SIGKILL)

    def end() -> object:
        return next((each for each in manager.ends() if each.pid == first.pid), None)

    told = eventually(end, "word of its end")
    assert (told.host, told.queue, told.how, told.asked) == (host.name, "hgpu", "killed by SIGKILL", False)  # type: ignore[attr-defined]
    assert "starts again" in told.next  # type: ignore[attr-defined]
    assert "ready" in told.log  # type: ignore[attr-defined]
    eventually(
        lambda: [each.pid for each in workers.status() if each.state == "up" and each.pid != first.pid], "another"
    )
    assert workers.status()[0].why == "killed by SIGKILL"
    workers.stop()


def test_what_it_had_in_hand_is_told_with_its_end_and_done_by_the_next(
    host: RunningHost, manager: Manager, redis_url: str, tmp_path: Path
) -> None:
    workers = manager.hosts[host.name].start("hgpu")
    (first,), gate = workers.status(), tmp_path / "gate"
    assert first.message is None
    eventually(lambda: workers.status()[0].polled is not None, "an answer of its queue")
    gated = warped("tests.nodes.remote.Gate", "hgpu", timeout=60.0)
    reading = Reading(Runner(redis_url).stream(gated, [Message(str(gate))]))
    eventually(lambda: [held for each in workers.status() for held in each.held], "work in hand")
    eventually(lambda: workers.status()[0].message is not None, "word that it began")
    (node,) = [each for each in manager.nodes() if each.mark == "tests.nodes.remote.Gate"]
    assert (node.name, node.mark, node.queue) == ("there", "tests.nodes.remote.Gate", "hgpu")
    assert node.workers == (first.place,)
    os.kill(first.pid, signal.SIGKILL)
    end = eventually(lambda: next((each for each in manager.ends() if each.pid == first.pid), None), "word of its end")
    assert end is not None
    assert [(node, count) for _, node, count in end.held] == [("there", 1)]
    gate.touch()
    assert reading.payloads() == [str(gate)]
    workers.stop()


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda host: host.start("io"), r"starts no workers of queue 'io'.*has hcpu, hgpu: add \[queues.io\] there"),
        (
            lambda host: host.start("hgpu", 3),
            r"may run 2 workers of queue 'hgpu': 3 were asked for; stop some, or",
        ),
        (lambda host: host.start("hgpu", slots=0), "slots must be 1 or more, not 0"),
        (lambda host: host.start("hgpu", pool="os:system"), "pool must be solo, prefork or threads, not 'os:system'"),
    ],
)
def test_what_its_list_does_not_allow_is_refused(host: RunningHost, manager: Manager, ask: object, said: str) -> None:
    with pytest.raises((HostError, ConfigError), match=said):
        ask(manager.hosts[host.name])  # type: ignore[operator]
    assert manager.hosts[host.name].workers() == []


@pytest.mark.parametrize("pool", ["solo", "prefork"] if LONG else ["prefork"])
def test_a_node_is_warm_before_the_first_message(
    host: RunningHost, manager: Manager, redis_url: str, pool: str
) -> None:
    heavy = ("tests.nodes.remote.Heavy", {"load": 0.3})
    workers = manager.hosts[host.name].start("hgpu", pool=pool, slots=1, preload=[heavy])

    def warm() -> int:
        return sum("tests.nodes.remote.Heavy is warm, after 0." in line.text for line in workers.logs())

    eventually(warm, "a warm node")
    pipeline = warped(heavy[0], "hgpu", configuration=heavy[1])
    assert [message.payload for message in Runner(redis_url).stream(pipeline, [Message(0.0)])] == [0.0]
    assert warm() == 1
    workers.stop()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (("tests.nodes.remote.Hevy", {}), r"serves no node 'tests.nodes.remote.Hevy'; did you mean .*imports"),
        (("tests.nodes.remote.Heavy", {"laod": 1}), "laod"),
    ],
)
def test_a_node_that_cannot_be_warmed_is_an_error(
    host: RunningHost, manager: Manager, node: tuple[str, dict[str, object]], said: str
) -> None:
    with pytest.raises(HostError, match=f"(?s){said}"):
        manager.hosts[host.name].start("hgpu", preload=[node])


def test_stopping_twice_is_an_error(host: RunningHost, manager: Manager) -> None:
    workers = manager.hosts[host.name].start("hgpu")
    workers.stop()
    with pytest.raises(HostError, match="were stopped already; see `celerypipe worker ls`"):
        workers.stop()
    with pytest.raises(HostError, match="were stopped already"):
        workers.restart()


def test_who_waits_for_workers_that_somebody_else_stops_is_told(
    host: RunningHost, manager: Manager, redis_url: str
) -> None:
    workers = manager.hosts[host.name].start("hgpu", wait=False)
    eventually(manager.hosts[host.name].workers, "word of them")
    _stop(redis_url, host.name, workers.id)
    with pytest.raises(HostError, match="somebody else stopped them meanwhile"):
        workers.wait()


@at_length
def test_who_waits_for_workers_that_somebody_else_scales_waits_for_those(
    host: RunningHost, manager: Manager, redis_url: str
) -> None:
    workers = manager.hosts[host.name].start("hcpu", 2)
    with Manager(redis_url) as other:
        (same,) = other.hosts[host.name].workers()
        same.scale(1)
        same.restart()
    workers.restart()
    assert [(each.state, each.starts) for each in workers.status()] == [("up", 3)]
    workers.stop()


def test_who_stops_waiting_at_once_leaves_nothing(
    host: RunningHost, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HostedWorkers, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        manager.hosts[host.name].start("hgpu", keep=True)
    monkeypatch.undo()
    manager.hosts[host.name].start("hcpu").stop()  # behind it
    assert manager.hosts[host.name].status().workers == []


def test_a_host_that_is_not_there_is_an_error_with_the_cure(manager: Manager, host: RunningHost) -> None:
    with pytest.raises(HostError, match=r"no host of that name was ever seen.*celerypipe host --name nowhere"):
        manager.hosts["nowhere"]
    with pytest.raises(HostError, match=f"did you mean '{host.name}'"):
        manager.hosts[host.name[:-1]]


def test_a_message_in_hand_is_finished_before_a_worker_is_drained(
    host: RunningHost, manager: Manager, redis_url: str, tmp_path: Path
) -> None:
    workers = manager.hosts[host.name].start("hgpu")
    gate = tmp_path / "gate"
    gated = warped("tests.nodes.remote.Gate", "hgpu", timeout=60.0)
    reading = Reading(Runner(redis_url).stream(gated, [Message(str(gate))]))
    with ThreadPoolExecutor() as pool:
        eventually(lambda: [held for each in workers.status() for held in each.held], "work in hand")
        stopping = pool.submit(_stop, redis_url, host.name, workers.id)
        eventually(lambda: [each.state for each in workers.status()] == ["stopping"], "word of it")
        assert not stopping.done()
        gate.touch()
        assert reading.payloads() == [str(gate)]
        stopping.result()
    assert workers.status() == []


def _stop(url: str, host: str, workers: str) -> None:
    """Another manager stops them: any may."""
    manager = Manager(url)
    next(each for each in manager.hosts[host].workers() if each.id == workers).stop()
    manager.close()
