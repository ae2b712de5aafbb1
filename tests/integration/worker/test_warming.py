"""The warm-up of a node on a worker: a time of its own, in the report and in what a status says."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from celerypipe import Message, Runner
from celerypipe.mailbox.status import read_status
from celerypipe.redis.connection import connect
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.servers import StartWorker, eventually


def test_the_warm_up_on_a_worker_is_no_messages_time(start_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    start_worker("heavy", pool="solo", config=CONFIG)
    configuration = {"load": 2.0, "until": str(tmp_path / "seen")}
    pipeline = warped("tests.nodes.remote.Heavy", "heavy", configuration=configuration, timeout=1.0)
    runner = Runner(redis_url)
    reader = threading.Thread(target=lambda: list(runner.stream(pipeline, [Message(0.0), Message(0.0)])))
    reader.start()
    with connect(redis_url) as client:

        def warms_up() -> bool:
            return any(each.warming for worker in read_status(client).workers for each in worker.busy)

        eventually(warms_up, "a status that says so")
    run = runner._current
    assert run is not None
    eventually(lambda: run.report()["there"].warming, "a table that says so")
    (tmp_path / "seen").touch()
    reader.join()
    assert runner.report is not None
    one = runner.report["there"]
    assert (one.sent, one.failed, one.warming) == (2, {}, False)
    assert one.warmup >= 2.0
    assert one.running is not None
    assert one.running.p99 < 1.0


@pytest.mark.parametrize(("kept", "anew"), [("0", True), ("true", False)])
def test_how_long_a_node_stays_warm_is_what_the_file_of_its_queue_says(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, kept: str, anew: bool
) -> None:
    start_worker("heavy", pool="solo", config=f"{CONFIG}keep_warm = {kept}\n")
    pipeline = warped("tests.nodes.remote.Heavy", "heavy", configuration={"load": 0.01, "until": str(tmp_path)})
    warmups = []
    for _ in range(2):
        runner = Runner(redis_url)
        assert len(list(runner.stream(pipeline, [Message(0.0)]))) == 1
        assert runner.report is not None
        warmups.append(runner.report["there"].warmup > 0.0)
    assert warmups == [True, anew]
