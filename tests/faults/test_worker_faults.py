"""Workers die, and nothing is lost: counted messages, real processes, real kills."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from celerypipe import Message, RunCancelled, Runner, codec
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.extent import LONG


def test_a_killed_child_costs_a_lease_and_no_message(start_worker: StartWorker, redis_url: str) -> None:
    start_worker("kchild", pool="prefork", concurrency=2, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", "kchild", configuration={"delay": 0.005})
    reading = Reading(Runner(redis_url).stream(pipeline, (Message(number) for number in range(600))))
    reading.wait_for(50)
    os.kill(reading.out[-1].meta["pid"], signal.SIGKILL)
    assert reading.payloads() == list(range(600))


def test_a_message_that_kills_its_process_is_given_up_and_the_others_are_not(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    start_worker("kpoison", pool="prefork", concurrency=2, config=CONFIG)
    pipeline = warped(
        "tests.nodes.remote.Deadly",
        "kpoison",
        configuration={"bad": [30]},
        on_error="dead_letter",
        folder=str(tmp_path),
    )
    out = [message.payload for message in Runner(redis_url).stream(pipeline, map(Message, range(100)))]
    assert out == [number for number in range(100) if number != 30]
    (why,) = (json.loads(path.read_text()) for path in tmp_path.glob("dead_letters/*.json"))
    assert why["error"] == "WorkerLost"
    assert "there: the process that ran it died 3 times" in why["text"]
    (kept,) = (codec.decode(path.read_bytes()) for path in tmp_path.glob("dead_letters/*.message"))
    assert kept[0].payload == 30


@pytest.mark.parametrize(("pool", "slots"), [("prefork", 1), *([("solo", 1), ("threads", 1)] if LONG else [])])
def test_a_worker_that_shuts_down_hands_over_at_once(
    start_worker: StartWorker, redis_url: str, pool: str, slots: int
) -> None:
    queue = f"kterm{pool}"
    first = start_worker(queue, pool=pool, concurrency=slots, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", queue, configuration={"delay": 0.005})
    reading = Reading(Runner(redis_url).stream(pipeline, (Message(number) for number in range(600))))
    reading.wait_for(50)
    start_worker(queue, pool=pool, concurrency=slots, config=CONFIG)
    first.process.send_signal(signal.SIGTERM)
    assert first.wait_for_end() == 0, first.text()
    assert reading.payloads() == list(range(600))


def test_an_activation_comes_back_to_celery_under_load(start_worker: StartWorker, redis_url: str) -> None:
    worker = start_worker("kload", pool="solo", config=CONFIG)
    limits = {"slice": 0.05, "term": 0.3}
    first = warped("tests.nodes.remote.Echo", "kload", configuration={"delay": 0.002}, limits=limits)
    slow = Reading(Runner(redis_url).stream(first, (Message(number) for number in range(1500))))
    slow.wait_for(20)
    # The only process of the worker is busy with the first run for seconds; the second gets its turn meanwhile.
    second = warped("tests.nodes.remote.Echo", "kload", limits=limits)
    assert len(list(Runner(redis_url).stream(second, (Message(number) for number in range(50))))) == 50
    assert slow.is_alive()
    assert slow.payloads() == list(range(1500))
    eventually(lambda: "other tasks wait" in worker.text(), "an activation that gave way")


def test_a_hung_update_ends_in_time_and_its_process_is_usable_again(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    start_worker("khang", pool="solo", config=CONFIG)
    diary = tmp_path / "diary"
    pipeline = warped(
        "tests.nodes.remote.Nap", "khang", configuration={"diary": str(diary)}, timeout=0.5, on_error="skip"
    )
    out = [message.payload for message in Runner(redis_url).stream(pipeline, [Message(60.0), Message(0.01)])]
    assert out == [0.01]
    assert diary.read_text().split() == ["60.0", "0.01"]  # the hung one was not started a second time


def test_a_worker_that_shuts_down_leaves_the_rest_of_its_batch(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    first = start_worker("batch", pool="solo", config=CONFIG)
    gates = [str(tmp_path / "one"), str(tmp_path / "two")]
    payloads = [*range(300), gates[0], *range(300, 310), gates[1], *range(310, 340)]
    stream = Runner(redis_url).stream(warped("tests.nodes.remote.Gate", "batch"), [Message(each) for each in payloads])
    reading = Reading(stream)
    reading.wait_for(300)  # it waits at the first gate now, or soon, and holds what is behind it
    first.process.terminate()
    Path(gates[0]).touch()
    first.wait_for_end()  # at the second gate it would wait for ever
    start_worker("batch", pool="solo", config=CONFIG)
    Path(gates[1]).touch()
    assert reading.payloads() == payloads


@pytest.mark.parametrize(("pool", "slots"), [("prefork", 1), *([("solo", 1), ("threads", 1)] if LONG else [])])
def test_a_worker_whose_redis_went_while_it_worked_still_ends_when_told(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path, pool: str, slots: int
) -> None:
    """Celery's own heartbeat, overdue after the work, would try without end and hear nothing."""
    worker = start_worker("alone", pool=pool, concurrency=slots, config=CONFIG, url=private_redis.url)
    diary = tmp_path / "diary"
    pipeline = warped("tests.nodes.remote.Nap", "alone", configuration={"diary": str(diary)})
    runner = Runner(private_redis.url)
    reading = Reading(runner.stream(pipeline, [Message(4.0)]))
    eventually(diary.exists, "the beginning of the nap")
    private_redis.stop()
    worker.wait_for_text(": broken off: ")
    worker.process.terminate()
    worker.wait_for_end()
    runner.cancel()
    with pytest.raises(RunCancelled):
        reading.payloads()
