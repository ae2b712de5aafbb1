"""A worker is told to end, in every way there is: what is at work gets some time, all else is handed back at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from celerypipe import Message, Runner
from celerypipe.celery.application import make_app
from celerypipe.mailbox.status import read_status
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import PATIENCE, RedisServer, RunningWorker, StartWorker, eventually
from tests.servers.extent import at_length
from tests.servers.terminal import Terminal

#: Further ways to say it twice, or with urgency.
LATER = [pytest.param(each, marks=at_length) for each in [(signal.SIGINT,) * 2, (signal.SIGQUIT,)]]
FAULTY = 'imports = ["tests.nodes.faulty"]\n'


def at_work(redis_url: str, queue: str, folder: Path, seconds: float, messages: int = 1) -> Reading:
    """A run whose first message is in ``update`` there."""
    diary = folder / "diary"
    pipeline = warped("tests.nodes.remote.Nap", queue, configuration={"diary": str(diary)})
    reading = Reading(Runner(redis_url).stream(pipeline, [Message(seconds) for _ in range(messages)]))
    eventually(lambda: diary.exists() and diary.read_text(), "a message at work")
    return reading


def another_life(worker: RunningWorker) -> bool:
    return any(each["id"] != worker.presence["id"] for each in worker.presences())


@pytest.mark.parametrize("typed", [("celerypipe",), pytest.param(("celery", "-A", "celerypipe"), marks=at_length)])
def test_sighup_starts_it_anew_however_it_was_typed(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, typed: tuple[str, ...]
) -> None:
    queue = f"hup{len(typed)}"
    worker = start_worker(queue, pool="solo", config=CONFIG, typed=typed, fresh=True)
    reading = at_work(redis_url, queue, tmp_path, 1.0, 3)
    worker.process.send_signal(signal.SIGHUP)
    eventually(lambda: not worker.presences(), "the end of the first life")
    worker.process.send_signal(signal.SIGHUP)  # while it ends, or comes up
    eventually(lambda: another_life(worker), "the next life of the worker")
    assert reading.payloads() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("number", [signal.SIGHUP, pytest.param(signal.SIGINT, marks=at_length)])
def test_what_is_ignored_when_it_starts_stays_ignored(
    start_worker: StartWorker, redis_url: str, number: signal.Signals
) -> None:
    def ignoring() -> None:
        signal.signal(number, signal.SIG_IGN)  # as nohup does, and a shell for what it starts in the background

    queue = f"ign{number}"
    worker = start_worker(queue, pool="threads", concurrency=1, config=CONFIG, preexec_fn=ignoring)
    worker.process.send_signal(number)
    (out,) = Runner(redis_url).stream(warped("tests.nodes.remote.Echo", queue), [Message(1)])
    assert out.payload == 1
    assert "it ends when" not in worker.text()
    assert not another_life(worker)


def test_a_terminal_that_is_closed_ends_it_when_what_is_at_work_has_ended(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    terminal = Terminal()
    worker = start_worker("tty", pool="prefork", concurrency=1, config=CONFIG, **terminal.how)
    reading = at_work(redis_url, "tty", tmp_path, 2.0)
    terminal.close()
    assert reading.payloads() == [2.0]
    assert worker.wait_for_end() == 0
    assert (tmp_path / "diary").read_text() == "2.0\n"


def run_on(client: Client, queue: str) -> str:
    """The run whose node is on this queue."""
    (run,) = {mailbox.run for mailbox in read_status(client).mailboxes if mailbox.queue == queue}
    return run


def hanging(runner: Runner, queue: str, folder: Path, way: str, end: threading.Event | None = None) -> Reading:
    """A run whose first message hangs in that way where it is begun first; ``end``: when the run may."""

    def messages() -> Iterator[Message]:
        yield from (Message(way), Message("next"))
        if end is not None:
            end.wait(PATIENCE)

    once = folder / "once"
    pipeline = warped("tests.nodes.faulty.Hangs", queue, configuration={"once": str(once)})
    reading = Reading(runner.stream(pipeline, messages()))
    eventually(once.exists, "a message at work")
    return reading


def test_what_it_has_read_and_not_begun_is_handed_back(
    start_worker: StartWorker, redis_url: str, redis_client: Client, tmp_path: Path
) -> None:
    """Else it is claimed once the process is gone, and then nobody can tell that it did not die of one of them."""
    gate, runner = tmp_path / "gate", Runner(redis_url)
    quick = range(100)  # so that many are read at a time
    pipeline = warped("tests.nodes.remote.Gate", "unbegun", limits={"window": 300})
    reading = Reading(runner.stream(pipeline, map(Message, [*quick, str(gate), *quick])))
    eventually(lambda: any(each.queue == "unbegun" for each in read_status(redis_client).mailboxes), "its mailbox")
    (stream,) = redis_client.scan_iter(f"celerypipe:mailbox:{run_on(redis_client, 'unbegun')}:*")
    eventually(lambda: redis_client.xlen(stream) == 2 * len(quick) + 1, "all of them waiting")
    worker = start_worker("unbegun", pool="solo", config=CONFIG)
    reading.wait_for(len(quick))
    worker.process.terminate()
    worker.wait_for_text("it ends when what is at work has ended")
    gate.touch()
    assert worker.wait_for_end() == 0
    reading.wait_for(len(quick) + 1)
    assert redis_client.xpending(stream, keys.GROUP)["pending"] == 0
    eventually(lambda: redis_client.xlen(stream) == len(quick), "the others waiting again")
    runner.cancel()


@pytest.mark.parametrize(
    ("pool", "way", "status"),
    [
        ("prefork", "sleep", os.EX_OK),
        ("prefork", "deaf", None),
        pytest.param("solo", "sleep", os.EX_OK, marks=at_length),
        pytest.param("threads", "sleep", os.EX_TEMPFAIL, marks=at_length),
        pytest.param("prefork", "gil", None, marks=at_length),
    ],
)
def test_what_is_at_work_for_too_long_is_handed_to_others(
    start_worker: StartWorker,
    redis_url: str,
    redis_client: Client,
    tmp_path: Path,
    pool: str,
    way: str,
    status: int | None,
) -> None:
    queue = f"long{pool}{way}"
    first = start_worker(queue, pool=pool, concurrency=1, config=FAULTY + "worker_soft_shutdown_timeout = 0.5\n")
    end = threading.Event()
    reading = hanging(Runner(redis_url), queue, tmp_path, way, end)
    run = run_on(redis_client, queue)
    start_worker(queue, pool="threads", concurrency=1, config=FAULTY)
    first.process.terminate()
    reading.wait_for(2)
    counted = redis_client.hgetall(redis_client.names.attempts(run, "there"))  # which goes with the run
    end.set()
    assert reading.payloads() == [way, "next"]
    assert not counted
    ended = first.wait_for_end()
    assert status is None or ended == status, first.text()


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGTERM,) * 2,
        *(pytest.param(each, marks=at_length) for each in [(signal.SIGINT,) * 2, (signal.SIGQUIT,)]),
    ],
)
def test_told_again_it_hands_back_at_once(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    queue = f"again{signals[0]}"
    patient = "worker_soft_shutdown_timeout = 3600\n"
    worker = start_worker(queue, pool="prefork", concurrency=1, config=FAULTY + patient)
    reading = hanging(Runner(redis_url), queue, tmp_path, "sleep")
    for number in signals:
        worker.process.send_signal(number)
        worker.wait_for_text(number.name)
    assert worker.wait_for_end() == 0
    start_worker(queue, pool="threads", concurrency=1, config=FAULTY)
    assert reading.payloads() == ["sleep", "next"]


def test_celerys_remote_control_ends_it_as_a_signal_does(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    patient = "worker_soft_shutdown_timeout = 0.5\n"
    worker = start_worker("afar", pool="prefork", concurrency=1, config=FAULTY + patient, arguments=["-n", "afar@here"])
    reading = hanging(Runner(redis_url), "afar", tmp_path, "sleep")
    make_app({"CELERYPIPE_REDIS_URL": redis_url}).control.shutdown(destination=["afar@here"])
    assert worker.wait_for_end() == 0
    assert "Traceback" not in worker.text()
    assert not worker.presences()
    start_worker("afar", pool="threads", concurrency=1, config=FAULTY)
    assert reading.payloads() == ["sleep", "next"]


@pytest.mark.parametrize(
    "pool", ["prefork", pytest.param("solo", marks=at_length), pytest.param("threads", marks=at_length)]
)
def test_it_ends_although_redis_is_gone_for_good(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path, pool: str
) -> None:
    config = FAULTY + "worker_soft_shutdown_timeout = 0.5\n"
    worker = start_worker("gone", url=private_redis.url, pool=pool, concurrency=1, config=config)
    runner = Runner(private_redis.url)
    hanging(runner, "gone", tmp_path, "sleep")
    private_redis.stop()
    worker.process.terminate()
    assert worker.wait_for_end() in (os.EX_OK, os.EX_TEMPFAIL)
    runner.cancel()


@pytest.mark.parametrize("alone", [False, pytest.param(True, marks=at_length)])
def test_a_pool_process_that_is_told_to_end_fails_no_message(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, alone: bool
) -> None:
    queue = f"told{alone}"
    worker = start_worker(queue, pool="prefork", concurrency=1, config=CONFIG)
    reading = at_work(redis_url, queue, tmp_path, 1.5)
    (child,) = worker.presences()[0]["processes"]
    if not alone:  # as systemd tells all processes of a unit
        worker.process.terminate()
    os.kill(child, signal.SIGTERM)
    assert reading.payloads() == [1.5]
    assert (tmp_path / "diary").read_text() == "1.5\n"
    if alone:
        eventually(lambda: worker.presences()[0]["processes"] != [child], "a process in its place")


def test_a_pool_that_ends_sleeps_beside_none_of_its_processes(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    worker = start_worker("awake", pool="prefork", concurrency=2, config=CONFIG.replace("]", ', "tests.nodes.awake"]'))
    reading = at_work(redis_url, "awake", tmp_path, 0.5)
    worker.process.terminate()
    assert reading.payloads() == [0.5]
    assert worker.wait_for_end() == os.EX_OK
    assert "it sleeps" not in worker.text()
