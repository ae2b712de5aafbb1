"""A queue that does not answer: its messages do not wait one after another."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celerypipe import CircuitOpen, Message, NoWorker, Pipeline, Runner
from celerypipe.runner.folder.letters import DeadLetters
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import StartWorker, eventually
from tests.servers.extent import at_length

#: `make faults`: the long form.


def skipping(queue: str, mark: str = "tests.nodes.remote.Echo", on_no_worker: str = "wait", **options: Any) -> Pipeline:
    limits = {"on_no_worker": on_no_worker, **options.pop("limits", {})}
    return warped(mark, queue, on_error=options.pop("on_error", "skip"), limits=limits, **options)


def endless(over: threading.Event) -> Iterator[Message]:
    """200 messages a second until it is over."""
    while not over.wait(0.005):
        yield Message(0)


def test_without_a_worker_a_few_messages_wait_and_the_rest_is_given_up_at_once(redis_url: str, tmp_path: Path) -> None:
    said: list[str] = []
    runner = Runner(redis_url, on_event=said.append)
    pipeline = skipping("cnobody", timeout=0.3, retries=0, on_error="dead_letter", folder=str(tmp_path))
    assert list(runner.stream(pipeline, map(Message, range(400)))) == []
    report = runner.report
    assert report is not None
    failed = report["there"].failed
    assert sum(failed.values()) == 400
    assert failed["circuit"] > 380  # not 400 times 0.3 s
    (queue,) = report.queues
    assert (queue.queue, queue.circuit, queue.opened, queue.refused) == ("cnobody", "open", 1, failed["circuit"])
    assert "queue 'cnobody' failed once" in report.table()
    assert len([line for line in said if "failed without an answer" in line]) == 1
    untried = [letter for letter in DeadLetters(tmp_path / "dead_letters").find().letters if letter.attempts == 0]
    assert {letter.error for letter in untried} == {"CircuitOpen"}
    assert len(untried) == failed["circuit"]


def test_nobody_is_tried_again_while_it_is_open(redis_url: str) -> None:
    runner = Runner(redis_url)
    pipeline = skipping("cretry", timeout=0.2, retries=1, limits={"backoff": 0.01, "window": 4})
    assert list(runner.stream(pipeline, map(Message, range(50)))) == []
    assert runner.report is not None
    assert runner.report["there"].retried <= 8


def test_the_run_that_fails_says_why(redis_url: str) -> None:
    assert issubclass(CircuitOpen, NoWorker)
    runner = Runner(redis_url)
    with pytest.raises(NoWorker):
        list(runner.stream(skipping("cnone", on_no_worker="fail", on_error="stop"), map(Message, range(50))))


def test_on_no_worker_fail_decides_at_once_once_it_is_open(redis_url: str) -> None:
    """Without it, a window of two would be decided about once a second."""
    runner = Runner(redis_url)
    pipeline = skipping("cfail", on_no_worker="fail", limits={"window": 2})
    assert list(runner.stream(pipeline, map(Message, range(300)))) == []
    assert runner.report is not None
    assert runner.report["there"].failed["circuit"] > 280


def test_a_worker_that_starts_closes_it(start_worker: StartWorker, redis_url: str) -> None:
    said: list[str] = []
    over = threading.Event()
    stream = Runner(redis_url, on_event=said.append).stream(skipping("clate", timeout=0.5), endless(over))
    reading = Reading(stream)
    eventually(lambda: any("failed without an answer" in line for line in said), "that it opened")
    assert reading.out == []
    start_worker("clate", pool="solo", config=CONFIG)
    reading.wait_for(100)
    # On a busy machine a message that was sent to try has its answer before anybody saw the worker.
    assert any("a worker serves it now" in line or "it answers again" in line for line in said)
    over.set()
    reading.payloads()


@pytest.mark.parametrize("refused", [0, pytest.param(500, marks=at_length)])
def test_a_frozen_worker_opens_it_and_an_answer_closes_it(
    start_worker: StartWorker, redis_url: str, refused: int
) -> None:
    """The answer of what it had been given already, or, where all that was given up, of a probe."""
    worker = start_worker("cfrozen", pool="solo", config=CONFIG)
    said: list[str] = []
    over = threading.Event()
    runner = Runner(redis_url, on_event=said.append)
    reading = Reading(runner.stream(skipping("cfrozen", timeout=0.5), endless(over)))
    reading.wait_for(20)
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        eventually(lambda: any("failed without an answer" in line for line in said), "that it opened")
        run = runner._current
        assert run is not None
        eventually(lambda: run.report().queues[0].refused >= refused, "that messages are given up")
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    count = len(reading.out)
    reading.wait_for(count + 100)
    assert any("failed meanwhile" in line for line in said)
    over.set()
    reading.payloads()


def test_where_nodes_may_run_here_they_do(start_worker: StartWorker, redis_url: str) -> None:
    worker = start_worker("chere", pool="solo", config=CONFIG)
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        pipeline = skipping("chere", timeout=0.3, on_no_worker="local")
        out = [message.payload for message in Runner(redis_url).stream(pipeline, map(Message, range(200)))]
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)
    assert 5 <= 200 - len(out) <= 60
    assert out == sorted(out)
    assert out[-1] == 199


def test_a_node_that_raises_or_hangs_does_not_open_it(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    raising = skipping("tsolo", "tests.nodes.remote.Picky", configuration={"bad": list(range(40))})
    runner = Runner(redis_url)
    assert list(runner.stream(raising, map(Message, range(40)))) == []
    assert runner.report is not None
    assert runner.report["there"].failed == {"failed": 40}
    hanging = skipping("tsolo", "tests.nodes.remote.Nap", timeout=0.6)
    assert [m.payload for m in runner.stream(hanging, map(Message, [5.0] * 6 + [0.0]))] == [0.0]
    assert runner.report["there"].failed == {"timeout": 6}
    assert [queue.opened for queue in runner.report.queues] == [0]


@at_length
@pytest.mark.timeout(300)
@pytest.mark.parametrize("on_no_worker", ["wait", "local"])
def test_a_node_that_always_kills_its_process_does_not_kill_one_for_every_message_nor_the_runner(
    start_worker: StartWorker, redis_url: str, on_no_worker: str
) -> None:
    start_worker("cdeadly", pool="prefork", concurrency=2, config=CONFIG)
    runner = Runner(redis_url)
    bad = {"bad": list(range(200))}
    pipeline = skipping("cdeadly", "tests.nodes.remote.Deadly", configuration=bad, on_no_worker=on_no_worker)
    assert list(runner.stream(pipeline, map(Message, range(200)))) == []
    assert runner.report is not None
    failed = runner.report["there"].failed
    assert sum(failed.values()) == 200
    assert 5 <= failed["lost"] <= 20
