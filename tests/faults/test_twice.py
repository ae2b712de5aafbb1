"""Late, repeated and doubled: whatever comes twice counts once; and workers that live in another time or version."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import ConfigError, Manager, Message, Runner, codec
from celerypipe.celery.application import app
from celerypipe.mailbox.bell import Bell
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading, results
from tests.servers import ROOT, RedisServer, StartWorker, eventually
from tests.servers.command import celerypipe
from tests.servers.extent import at_length
from tests.servers.host import running_host
from tests.servers.task import connection_to

#: Where Debian's package libfaketime puts it; the directory is that of the machine's architecture.
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@pytest.fixture
def client(private_redis: RedisServer) -> Iterator[Client]:
    with connect(private_redis.url) as client:
        yield client


def key_of(client: Client, kind: str) -> bytes:
    """The one key of its kind, as soon as there is one."""
    return eventually(lambda: next(iter(client.scan_iter(f"celerypipe:{kind}:*")), b""), f"a key of kind {kind}")


class Feed:
    """Messages without end, until it is told to."""

    def __init__(self) -> None:
        self.ends = threading.Event()

    def __iter__(self) -> Iterator[Message]:
        while not self.ends.is_set():
            yield Message(0)


def test_a_result_that_comes_late_is_nobodys(start_doomed: StartWorker, redis_url: str, tmp_path: Path) -> None:
    """A worker is frozen in a message, another one takes over, and the first one wakes up and answers."""
    diary = tmp_path / "diary"
    first = start_doomed("wlate", pool="solo", config=CONFIG)
    answered = threading.Event()

    def messages() -> Iterator[Message]:
        yield Message(1.0)
        assert answered.wait(40)
        yield from map(Message, (0.01, 0.02))

    pipeline = warped("tests.nodes.remote.Nap", "wlate", configuration={"diary": str(diary)})
    reading = Reading(Runner(redis_url).stream(pipeline, messages()))
    eventually(diary.exists, "the beginning of its nap")
    os.killpg(first.process.pid, signal.SIGSTOP)
    try:
        start_doomed("wlate", pool="solo", config=CONFIG)
        reading.wait_for(1)
    finally:
        os.killpg(first.process.pid, signal.SIGCONT)
    first.wait_for_text(" succeeded in ")  # Celery's word for the end of an activation
    answered.set()
    assert reading.payloads() == [1.0, 0.01, 0.02]
    assert diary.read_text().split()[:2] == ["1.0", "1.0"]


def test_a_result_for_a_run_that_ended_is_thrown_away(
    start_doomed: StartWorker, private_redis: RedisServer, client: Client, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    worker = start_doomed("wover", pool="threads", concurrency=1, config=CONFIG, url=private_redis.url)
    pipeline = warped("tests.nodes.remote.Nap", "wover", configuration={"diary": str(diary)})
    runner = Runner(private_redis.url)
    reading = Reading(runner.stream(pipeline, [Message(1.0)]))
    eventually(diary.exists, "the beginning of its nap")
    runner.cancel()
    eventually(lambda: not reading.is_alive(), "the end of the run")
    worker.wait_for_text(" succeeded in ")
    assert not [key for kind in ("reply", "mailbox", "blob") for key in client.scan_iter(f"celerypipe:{kind}:*")]


def test_results_that_come_twice_count_once(
    start_doomed: StartWorker, private_redis: RedisServer, client: Client
) -> None:
    start_doomed("wtwice", pool="solo", config=CONFIG, url=private_redis.url)
    pipeline = warped("tests.nodes.remote.Echo", "wtwice", configuration={"delay": 0.001})
    reading = Reading(Runner(private_redis.url).stream(pipeline, map(Message, range(500))))
    reply, last, copies = key_of(client, "reply"), b"0-0", 0
    mine: set[bytes] = set()
    while reading.is_alive():
        for _, entries in client.xread({reply: last}, count=10, block=100) or ():
            for last, fields in entries:
                if last not in mine:
                    copy = client.xadd(reply, fields, nomkstream=True)
                    copies += copy is not None
                    mine.add(copy)
    assert reading.payloads() == list(range(500))
    assert copies > 0


def test_two_activations_for_one_mailbox_share_it(
    start_doomed: StartWorker, private_redis: RedisServer, client: Client
) -> None:
    """Bells are repeated, and vanish while they are held: activations come that should not, and nothing is doubled."""
    url = private_redis.url
    start_doomed("wboth", pool="prefork", concurrency=3, config=CONFIG, url=url)
    limits = {"parallel": 1, "linger": 0.1}
    pipeline = warped("tests.nodes.remote.Echo", "wboth", configuration={"delay": 0.002}, limits=limits)
    reading = Reading(Runner(url).stream(pipeline, map(Message, range(1000))))
    run = key_of(client, "mailbox").decode().split(":")[2]
    bell = f"{keys.USUAL.bell(run, 'there')}0"
    with connection_to(url) as connection:
        for stray in range(12):
            reading.wait_for(80 * stray)
            if stray % 2:
                client.delete(bell)
            arguments = Bell(run, "there", 0, f"stray{stray}").arguments("tests.nodes.remote.Echo", None)
            app.send_task(
                "tests.nodes.remote.Echo", arguments, queue="wboth", connection=connection, ignore_result=True
            )
    assert reading.payloads() == list(range(1000))
    assert len({message.meta["pid"] for message in reading.out}) > 1


def test_a_task_too_many_is_used_up(start_doomed: StartWorker, private_redis: RedisServer, client: Client) -> None:
    url, mark = private_redis.url, "tests.nodes.remote.Echo"
    worker = start_doomed("wmany", pool="solo", config=CONFIG, url=url)
    feed = Feed()
    reading = Reading(Runner(url).stream(warped(mark, "wmany", configuration={"delay": 0.002}), feed))
    reading.wait_for(10)
    bell = Bell(key_of(client, "mailbox").decode().split(":")[2], "there", 0, "stray")
    with connection_to(url) as connection:
        app.send_task(mark, bell.arguments(mark, None), queue="wmany", connection=connection, ignore_result=True)
    worker.wait_for_text("or comes for it")
    handed_back = worker.text().count("other tasks wait")
    reading.wait_for(len(reading.out) + 300)  # the work of several slices
    feed.ends.set()
    reading.payloads()
    assert worker.text().count("other tasks wait") <= handed_back + 1


@pytest.mark.parametrize("shift", ["+1h", pytest.param("-1h", marks=at_length)])
@pytest.mark.skipif(not FAKETIME, reason="without libfaketime (apt install libfaketime) no process lives an hour off")
def test_a_clock_that_is_an_hour_off_changes_nothing(start_doomed: StartWorker, redis_url: str, shift: str) -> None:
    env = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": shift}
    queue = f"wclock{'ahead' if shift[0] == '+' else 'behind'}"
    worker = start_doomed(queue, pool="prefork", concurrency=1, config=CONFIG, env=env, fresh=True)
    assert abs(worker.presence["started"] - os.stat(worker.log).st_mtime) > 3000  # it does live an hour off
    pipeline = warped("tests.nodes.remote.Nap", queue, timeout=2.0, on_error="skip")
    runner = Runner(redis_url)
    payloads = [0.001] * 50 + [60.0] + [0.002] * 50
    assert results(runner, pipeline, payloads) == [0.001] * 50 + [0.002] * 50
    assert runner.report is not None
    there = runner.report["there"]
    assert (there.failed["timeout"], there.skipped) == (1, 1)
    assert there.waiting is not None
    assert 0 <= there.waiting.p50 <= there.waiting.p99 < 60


@pytest.fixture
def stranger(start_doomed: StartWorker, redis_url: str, workplace: Any) -> Any:
    """Starts a worker whose celerypipe has another version of the codec."""
    text = "from celerypipe import codec\nfrom tests.nodes.remote import Echo\n\ncodec.CODEC_VERSION = 99\n"
    workplace.module("tests_of_another_version", text)

    def start(queue: str) -> Any:
        workplace.config(queue, 'imports = ["tests_of_another_version", "tests.nodes.remote"]\n')
        python_path = os.pathsep.join([str(workplace.folder), str(ROOT)])
        return start_doomed(queue, pool="solo", cwd=workplace.folder, env={"PYTHONPATH": python_path})

    return start


def test_a_worker_with_another_codec_is_refused_with_both_versions(redis_url: str, stranger: Any) -> None:
    stranger("wcodec")
    with pytest.raises(ConfigError, match=rf"codec 99, this machine {codec.CODEC_VERSION}"):
        results(Runner(redis_url), warped("tests.nodes.remote.Echo", "wcodec"), range(10))


@at_length
def test_beside_others_a_worker_with_another_codec_does_no_harm(
    start_doomed: StartWorker, redis_url: str, stranger: Any
) -> None:
    start_doomed("wmixed", pool="solo", config=CONFIG)
    other = stranger("wmixed")
    runner, payloads = Runner(redis_url), list(range(100))
    pipeline = warped("tests.nodes.remote.Echo", "wmixed", configuration={"delay": 0.002}, limits={"linger": 0.05})
    assert results(runner, pipeline, payloads) == payloads
    if "unreadable record" in other.text():  # it got a bell
        assert f"version {codec.CODEC_VERSION} of the codec, this celerypipe reads version 99" in other.text()


@at_length
@pytest.mark.parametrize("shift", ["+1h", "-1h"])
@pytest.mark.skipif(not FAKETIME, reason="without libfaketime (apt install libfaketime) no process lives an hour off")
def test_a_host_an_hour_off_the_clock_of_redis_is_up_and_does_what_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: str
) -> None:
    server = RedisServer()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("LD_PRELOAD", str(FAKETIME[0]))
        elsewhere.setenv("FAKETIME", shift)
        server.start()
    try:
        with running_host(tmp_path, server.url) as host, Manager(server.url) as manager:
            workers = manager.hosts[host.name].start("hgpu", 1)
            assert results(Runner(server.url), warped("tests.nodes.remote.Echo", "hgpu"), range(20)) == [*range(20)]
            status = manager.host_status(host.name)
            assert status.state == "up"
            assert status.since is not None
            assert 0 <= status.since < 600
            assert status.record is not None
            assert abs(status.record.clock) == pytest.approx(3600, abs=60)
            workers.restart()
            assert [each.state for each in workers.status()] == ["up"]
            workers.stop()
    finally:
        server.remove()


#: libfaketime cannot set the one clock and leave the monotonic one alone, which nobody can set.
SET = """
import pathlib, time
clock, real = pathlib.Path({clock!r}), time.time
time.time = lambda: real() + float(clock.read_text() or 0)
"""


@at_length
def test_a_host_whose_clock_is_set_goes_on_and_tells_of_it(tmp_path: Path, redis_url: str) -> None:
    """Its workers live on the same machine: theirs is set as well."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(SET.format(clock=str(clock)))
    around = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with running_host(tmp_path, redis_url, environment=around) as host, Manager(redis_url) as manager:
        workers = manager.hosts[host.name].start("hgpu", 1)
        (before,) = workers.status()
        nap = warped("tests.nodes.remote.Echo", "hgpu", configuration={"delay": 0.02})
        reading = Reading(Runner(redis_url).stream(nap, map(Message, range(300))))
        for seen, ahead in enumerate((3600, -3600), start=1):
            reading.wait_for(60 * seen)
            clock.write_text(str(ahead))

            def told(ahead: int = ahead) -> bool:
                record = manager.host_status(host.name).record
                return record is not None and record.clock == pytest.approx(ahead, abs=60)

            eventually(told, f"a clock that is {ahead} s off")
            status = manager.host_status(host.name)
            assert (status.state, status.why) == ("up", "")
            assert status.since is not None
            assert 0 < status.since < 600
            assert f"{host.name}: its clock is 60 min" in celerypipe("hosts", CELERYPIPE_REDIS_URL=redis_url).stdout
        assert reading.payloads() == [*range(300)]
        assert [each.pid for each in workers.status()] == [before.pid], "nobody was started again"
        workers.restart()
        assert [each.state for each in workers.status()] == ["up"]
        workers.stop()
