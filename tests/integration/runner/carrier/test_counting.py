"""What a run counts for metrics: every message that was sent to a warped node, once, however it and its run ended."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path

import pytest

from celerypipe import Message, NodeFailed, RunCancelled, Runner
from tests.nodes import called
from tests.nodes.remote import CONFIG
from tests.runs.metrics import counted, outcomes
from tests.runs.pipelines import chain, warped
from tests.runs.reading import Reading, results
from tests.runs.streaming import endless, start_run
from tests.servers import StartWorker, eventually
from tests.servers.extent import at_length


def test_counters_go_on_over_runs_and_each_message_is_in_one_of_them(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("counted", config=CONFIG, pool="threads", concurrency=2)
    picky = {
        "mark": "tests.nodes.remote.Picky",
        "queue": "counted",
        "configuration": {"bad": [3, 7]},
        "limits": {"backoff": 0.01},
    }
    given = range(20)
    for options in ({"on_error": "skip", "retries": 1}, {"on_error": "dead_letter", "folder": str(tmp_path)}):
        for _ in range(2):
            assert len(results(Runner(redis_url), warped(**picky, **options), given)) == 18
    assert outcomes(redis_url, "counted") == {"done": 72, "skipped": 4, "dead_letter": 4}
    (found,) = counted(redis_url, "counted")
    assert (found.pipeline, found.node, found.retried) == ("test", "there", 4)
    assert [sum(found.buckets[time].values()) for time in ("wait", "run", "transfer")] == [72, 72, 72]
    runner = Runner(redis_url)
    with pytest.raises(NodeFailed):
        results(runner, warped(**picky), given)
    after = outcomes(redis_url, "counted")
    assert after["failed"] >= 1
    assert runner.report is not None
    assert after.total() == 80 + runner.report["there"].received
    results(Runner(redis_url), chain("counted", "Echo", "Echo"), given)
    assert [outcomes(redis_url, "counted", node) for node in ("n0", "n1")] == 2 * [{"done": 20}], (
        "one goes on to the other"
    )


def test_a_run_that_is_cancelled_leaves_its_messages_unfinished(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("left", config=CONFIG, pool="threads", concurrency=2)
    runner, gate = Runner(redis_url), tmp_path / "open"
    held = warped("tests.nodes.remote.Gate", "left", limits={"window": 8})
    reading = Reading(runner.stream(held, map(Message, itertools.chain([1, 2], itertools.repeat(str(gate))))))
    eventually(lambda: runner._current and runner._current.report()["there"].received == 11, "a full window")
    runner.cancel()
    with pytest.raises(RunCancelled):
        reading.payloads()
    gate.touch()
    assert runner.report is not None
    assert runner.report["there"].received == 11
    assert outcomes(redis_url, "left") == {"done": 2, "unfinished": 9}, "one of them had no room yet"


def test_a_call_that_is_cancelled_is_counted_as_that(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("calls", pool="prefork", concurrency=2, config=called.CONFIG)
    before, begun = outcomes(redis_url, "calls", "same"), tmp_path / "begun"
    with Runner(redis_url) as runner:
        assert [runner.submit(called.same, number).result(30) for number in range(3)] == [0, 1, 2]
        held = runner.submit(called.gate, str(begun), str(tmp_path / "never"))
        eventually(begun.exists, "the call at work")
        assert held.cancel()
    assert outcomes(redis_url, "calls", "same") - before == {"done": 3}
    assert outcomes(redis_url, "calls", "gate")["cancelled"] >= 1


@pytest.mark.parametrize(
    "signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), pytest.param((signal.SIGINT,), marks=at_length)]
)
def test_a_run_that_is_told_to_end_has_counted_all_that_it_sent(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    shared_worker("stopped", config=CONFIG, pool="threads", concurrency=2)
    before = outcomes(redis_url, "stopped")
    run = start_run(endless(tmp_path, "stopped"), redis_url)

    def so_far() -> int:
        return (outcomes(redis_url, "stopped") - before).total()

    first = eventually(so_far, "a batch")
    eventually(lambda: so_far() > first, "more, while the run goes on")
    for number in signals:
        run.process.send_signal(number)
    report = json.loads(run.finish().stdout)
    (there,) = [node for node in report["nodes"] if node["name"] == "there"]
    after = outcomes(redis_url, "stopped") - before
    assert after.total() == there["received"]
    assert len(signals) == 2 or not after["unfinished"], "one signal lets it end what it began"
