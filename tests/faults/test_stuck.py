"""A node that hangs: the run hears of it in time, and the worker frees itself or ends for its supervisor."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Message, NodeTimeout, Runner
from celerypipe.mailbox import hints
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.scripts import CLAIM
from celerypipe.mailbox.status import read_status
from celerypipe.redis import keys
from celerypipe.redis.connection import connect
from celerypipe.worker.activation.alarm import Unarmed
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.keeper import Lease
from celerypipe.worker.activation.stuck import CALL_BACK_PATIENCE, StuckWatch
from celerypipe.worker.boot import SPAWN_VARIABLE
from tests.nodes.faulty import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading, results
from tests.servers import RedisServer, StartWorker, Workplace, eventually
from tests.servers.extent import at_length
from tests.servers.proxy import Proxy

#: Hangs that an interrupt ends, and those it does not: C that holds the GIL, Python that takes no exception.
EASY, HARD = ["sleep", "socket"], ["gil", "deaf"]


def hanging(queue: str, **options: Any) -> Any:
    """A node that hangs for longer than a test may take, and has time enough to be begun on a busy machine."""
    return warped("tests.nodes.faulty.Hangs", queue, **{"timeout": 1.5, "on_error": "skip", **options})


def patient(queue: str) -> Any:
    """The same node without a timeout: it waits for a worker as long as it takes."""
    return warped("tests.nodes.faulty.Hangs", queue)


def hang(url: str, queue: str, way: str) -> None:
    """Run one message that hangs, and expect the error long before it ends."""
    with pytest.raises(NodeTimeout, match=r"1\.5 s exceeded \(.* running on "):
        results(Runner(url), hanging(queue, on_error="stop"), [way])


def served_by(url: str, queue: str) -> int:
    """Run one message; return the process that did it."""
    (message,) = Runner(url).stream(patient(queue), [Message(0)])
    return int(message.meta["pid"])


def test_a_prefork_child_is_freed_or_replaced(start_doomed: StartWorker, redis_url: str) -> None:
    worker = start_doomed("stuckprefork", pool="prefork", concurrency=1, config=CONFIG)
    pids = [served_by(redis_url, "stuckprefork")]
    for way in (*EASY, *HARD, "mute"):
        hang(redis_url, "stuckprefork", way)
        pids.append(served_by(redis_url, "stuckprefork"))
    assert len(set(pids)) == len(pids)
    assert "update() of node there, run " in worker.text()
    assert worker.presences()


def test_a_solo_worker_frees_itself_where_it_can(start_doomed: StartWorker, redis_url: str) -> None:
    worker = start_doomed("stucksolo", pool="solo", config=CONFIG)
    for way in EASY:
        hang(redis_url, "stucksolo", way)
        assert served_by(redis_url, "stucksolo") == worker.process.pid


@pytest.mark.parametrize(("pool", "slots"), [("prefork", 1), ("prefork", 2)])
def test_what_an_interrupted_process_left_stops_nobody(
    start_doomed: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    """Every second message is interrupted with a lock held that each message needs. The others have 1.5 s each."""
    queue = f"slock{slots}"
    start_doomed(queue, pool=pool, concurrency=slots, config=CONFIG)
    given = [each for number in range(4) for each in ("holds", number)]
    runner = Runner(redis_url)
    assert results(runner, hanging(queue), given) == list(range(4))
    assert [queue.opened for queue in runner.report.queues] == [0]
    runner = Runner(redis_url)  # another run, while the process of the last one is replaced
    assert results(runner, hanging(queue), range(4)) == list(range(4))


def test_a_solo_worker_that_was_interrupted_ends_for_its_supervisor(start_doomed: StartWorker, redis_url: str) -> None:
    first = start_doomed("ssolo", pool="solo", config=CONFIG, arguments=["--exit-when-stuck"])
    runner = Runner(redis_url)
    reading = Reading(runner.stream(hanging("ssolo"), map(Message, ["holds", 1, 2])))
    assert first.wait_for_end() == 75, first.text()
    assert "a node was interrupted in this process: it ends with status 75" in first.text()
    assert not first.presences()
    start_doomed("ssolo", pool="solo", config=CONFIG)
    assert reading.payloads() == [1, 2]


def test_a_process_that_is_to_be_kept_stays(start_doomed: StartWorker, redis_url: str) -> None:
    arguments = ["--keep-interrupted"]
    worker = start_doomed("skept", pool="prefork", concurrency=1, config=CONFIG, arguments=arguments)
    before = served_by(redis_url, "skept")
    hang(redis_url, "skept", "sleep")
    assert served_by(redis_url, "skept") == before
    with connect(redis_url) as client:
        (status,) = (each for each in read_status(client).workers if each.pid == worker.process.pid)
        assert status.keeps_interrupted


def test_a_threads_worker_that_is_to_stay_stays(start_doomed: StartWorker, redis_url: str) -> None:
    worker = start_doomed("sstay", pool="threads", concurrency=2, config=CONFIG)
    hang(redis_url, "sstay", "socket")
    assert served_by(redis_url, "sstay") == worker.process.pid
    worker.process.terminate()  # it cannot wait for that thread
    assert worker.wait_for_end() == 75, worker.text()


@pytest.mark.parametrize(
    ("pool", "slots", "way", "status"),
    [
        ("threads", 2, "gil", -signal.SIGKILL),
        ("solo", 1, "deaf", 75),
        pytest.param("threads", 2, "deaf", 75, marks=at_length),
        pytest.param("solo", 1, "gil", -signal.SIGKILL, marks=at_length),
    ],
)
def test_a_worker_that_stays_stuck_ends_and_the_next_one_goes_on(
    start_doomed: StartWorker, redis_url: str, pool: str, slots: int, way: str, status: int
) -> None:
    config, queue = f"{CONFIG}exit_when_stuck = 1.0\n", f"send{pool}{way}"
    first = start_doomed(queue, pool=pool, concurrency=slots, config=config)
    stream = Runner(redis_url).stream(patient(queue), map(Message, range(200)))
    assert next(stream).payload == 0
    hang(redis_url, queue, way)
    assert first.wait_for_end() == status, first.text()
    if way == "deaf":
        assert "update() of node there, run " in first.text()
        assert "in be_deaf" in first.text()
        assert not first.presences()
        with connect(redis_url) as client:  # those who wait for its queue have the time of the next one to start
            (told,) = client.zrange(client.names.freeing(queue), 0, -1, withscores=True)
            assert told[1] / 1000 - client.now() > keys.FREEING_TTL / 1000
    else:
        assert "it holds its interpreter lock, and is here:" in first.text()
        assert "in hold" in first.text()  # the stacks of all threads
    start_doomed(queue, pool=pool, concurrency=slots, config=config)
    assert [message.payload for message in stream] == list(range(1, 200))


@pytest.mark.parametrize(
    ("seconds", "given"), [(2.5, [0]), pytest.param(keys.FREEING_TTL / 1000 + 2, [0, "sleep", 1], marks=at_length)]
)
def test_nothing_is_late_while_a_process_is_spawned_that_imports_for_long(
    start_doomed: StartWorker, redis_url: str, workplace: Workplace, seconds: float, given: list[Any]
) -> None:
    """The first one of a worker, and one in the place of another. The worker itself imports the same, and is there."""
    slowly = f'import os\nimport time\n\nif "{SPAWN_VARIABLE}" in os.environ:\n    time.sleep({seconds})\n'
    workplace.module("slowly", slowly)
    config = CONFIG.replace("]", ', "slowly"]') + 'worker_pool_start_method = "spawn"\n'
    queue = f"spawns{len(given)}"
    start_doomed(queue, pool="prefork", concurrency=1, config=config, cwd=workplace.folder)
    assert results(Runner(redis_url), hanging(queue), given) == [each for each in given if each != "sleep"]
    with connect(redis_url) as client:
        eventually(lambda: not hints.is_freeing(client, queue), "its slot, which is no more to come")


@pytest.mark.parametrize(
    ("pool", "slots", "kind"),
    [
        ("solo", 1, "Hangs"),
        ("prefork", 2, "Hangs"),
        pytest.param("threads", 2, "Hangs", marks=at_length),
        pytest.param("prefork", 1, "Hangs", marks=at_length),
        ("prefork", 1, "HangsInOrder"),
        ("prefork", 1, "HangsTogether"),
        ("threads", 3, "HangsTogether"),
        pytest.param("solo", 1, "HangsTogether", marks=at_length),
    ],
)
def test_only_the_message_that_hears_no_interrupt_is_given_up(
    start_doomed: StartWorker, redis_url: str, pool: str, slots: int, kind: str
) -> None:
    """The ones behind it in the same activation have their time once somebody else, or the next process, has them.

    So have those that came with it in a batch: each is run by itself then.
    """
    queue = f"sbehind{pool}{slots}{kind}"
    start_doomed(queue, pool=pool, concurrency=slots, config=CONFIG, arguments=["--exit-when-stuck", "0"])
    given = [0, "deaf", *range(1, 9)]
    seconds = 2.0 if pool == "solo" else 60.0  # nobody would start it again
    runner = Runner(redis_url)
    mark = f"tests.nodes.faulty.{kind}"
    limits = {"batch": {"size": 3, "wait": 0.2}} if kind == "HangsTogether" else {}
    configuration = {"seconds": seconds}
    pipeline = warped(mark, queue, timeout=0.6, on_error="skip", configuration=configuration, limits=limits)
    assert results(runner, pipeline, given) == [0, *range(1, 9)]
    assert [queue.opened for queue in runner.report.queues] == [0]


def test_one_message_after_a_stuck_thread_is_given_to_another(start_doomed: StartWorker, redis_url: str) -> None:
    start_doomed("slone", pool="threads", concurrency=2, config=CONFIG)
    one_at_a_time = hanging("slone", timeout=0.6, limits={"window": 1})
    assert results(Runner(redis_url), one_at_a_time, ["deaf", 1]) == [1]


def test_a_worker_whose_redis_stands_still_is_not_stuck(start_doomed: StartWorker, private_redis: RedisServer) -> None:
    """Its nodes are quick; the clock in C for them must not go off while it waits to be told what the dead left."""
    queue = "sstill"
    with Proxy(private_redis.folder / "redis.sock") as proxy:
        arguments = ["--exit-when-stuck", "0.1"]
        worker = start_doomed(queue, url=proxy.url, pool="solo", config=CONFIG, arguments=arguments)
        pipeline = warped("tests.nodes.faulty.Hangs", queue, timeout=0.3, on_error="skip")
        proxy.late = CLAIM.digest.encode(), 3.0
        messages = (Message(number) for number in takewhile(lambda _: proxy.late is not None, count()))
        assert list(Runner(proxy.url).stream(pipeline, messages))
        assert served_by(proxy.url, queue) == worker.process.pid


def test_a_snapshot_that_hangs_in_a_thread_is_a_stuck_node(start_doomed: StartWorker, redis_url: str) -> None:
    config = 'imports = ["tests.nodes.stateful"]\nexit_when_stuck = 1.0\n'
    worker = start_doomed("ssnapshot", pool="threads", concurrency=1, config=config)
    configuration = {"wrong": "hang", "delay": 0.01}
    pipeline = warped("tests.nodes.stateful.Awkward", "ssnapshot", configuration=configuration, timeout=0.5)
    runner = Runner(redis_url)
    reading = Reading(runner.stream(pipeline, map(Message, range(300))))
    assert worker.wait_for_end() == 75, worker.text()
    assert "in snapshot" in worker.text()
    runner.cancel()
    reading.join(5.0)
    assert not reading.is_alive()


@at_length
@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 1), ("threads", 2)])
@pytest.mark.parametrize("way", [*EASY, *HARD])
def test_the_error_comes_in_time_in_every_pool(
    start_doomed: StartWorker, redis_url: str, pool: str, slots: int, way: str
) -> None:
    queue = f"stime{pool}{way}"
    start_doomed(queue, pool=pool, concurrency=slots, config=CONFIG)
    began = time.monotonic()
    hang(redis_url, queue, way)
    print(f"{pool}, {way}: the error came {time.monotonic() - began:.2f} s after the start of a run with 0.5 s")


def test_other_threads_finish_before_a_stuck_worker_ends(
    start_doomed: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    queue, gate = "sothers", tmp_path / "gate"
    config = 'imports = ["tests.nodes.faulty", "tests.nodes.remote"]\n'
    arguments = ["--exit-when-stuck", "1"]
    worker = start_doomed(queue, pool="threads", concurrency=2, config=config, arguments=arguments)
    other = Reading(
        Runner(redis_url).stream(warped("tests.nodes.remote.Gate", queue), [Message(1), Message(str(gate))])
    )
    other.wait_for(1)
    hang(redis_url, queue, "sleep")
    worker.wait_for_text("exits with status 75")
    eventually(lambda: not worker.presences(), "the end of its presence")
    gate.touch()
    assert other.payloads() == [1, str(gate)]
    assert worker.wait_for_end() == 75


@at_length
def test_two_threads_that_are_stuck_end_a_worker_like_one(start_doomed: StartWorker, redis_url: str) -> None:
    """They are waited for as if they might finish, and the clock in C must not take that for a GIL that is held."""
    arguments = ["--exit-when-stuck", "1"]
    worker = start_doomed("stwo", pool="threads", concurrency=2, config=CONFIG, arguments=arguments)
    assert results(Runner(redis_url), hanging("stwo"), ["sleep", "sleep"]) == []
    assert worker.wait_for_end() == 75, worker.text()


def test_a_retry_comes_in_time_too(start_doomed: StartWorker, redis_url: str, tmp_path: Path) -> None:
    worker = start_doomed("sretry", pool="threads", concurrency=2, config=CONFIG)
    once = {"once": str(tmp_path / "once")}
    # On a busy machine the second try may come too late as well; the next one has a free thread all the same.
    pipeline = hanging("sretry", retries=4, configuration=once, on_error="stop")
    assert results(Runner(redis_url), pipeline, [0, "sleep", 1]) == [0, "sleep", 1]
    worker.kill()


@pytest.fixture
def lease() -> Lease:
    """That of an activation which works on a message."""
    return Lease(Mailbox("run", "node"), 0, "host.1.token.0", Unarmed(DeadMan(None)), current="1-1")


@pytest.fixture
def said(lease: Lease) -> Iterator[list[str]]:
    """What a watch with a short grace says of that activation."""
    texts: list[str] = []
    StuckWatch(lambda: [lease], 0.1, lambda _, text: texts.append(text), lambda: texts and None)
    return texts


def test_what_is_stuck_is_said_once(lease: Lease, said: list[str]) -> None:
    lease.until = time.monotonic()
    eventually(lambda: said, "its word")
    assert said[0].startswith("update() of node node, run run, is stuck: it should have ended 0.")
    assert f"in {test_what_is_stuck_is_said_once.__name__}" in said[0]
    lease.current, lease.until = "1-2", time.monotonic()
    eventually(lambda: len(said) > 1, "the second one")
    assert len(said) == 2


def test_what_was_called_back_should_end_soon_and_what_has_no_limit_may_go_on(lease: Lease, said: list[str]) -> None:
    lease.call_back("1-0")  # one before
    looked = threading.Event()
    watch = StuckWatch(lambda: [lease], 0.1, lambda _, text: said.append(text), looked.set)
    looked.wait()
    looked.clear()
    looked.wait()
    assert not said
    lease.called_back = "1-1", time.monotonic() - CALL_BACK_PATIENCE
    eventually(lambda: said, "its word")
    assert watch is not None


def test_an_option_that_is_no_time_ends_the_worker_with_one_line(start_doomed: StartWorker) -> None:
    worker = start_doomed("sopt", pool="threads", config=CONFIG, arguments=["--exit-when-stuck", "soon"], wait=False)
    assert worker.wait_for_end() == 78
    assert "celerypipe: --exit-when-stuck soon: give seconds, 0 for a worker that stays" in worker.text()
