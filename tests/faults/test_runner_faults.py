"""The runner stops, is stopped, dies."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import redis

from celerypipe import Message, Runner
from celerypipe.redis import keys
from celerypipe.redis.connection import connect
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.streaming import endless, lines, start_run
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.command import start
from tests.servers.extent import LONG


def test_ctrl_c_once_drains_and_reports(start_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    start_worker("drain", pool="solo", config=CONFIG)
    run = start_run(endless(tmp_path, "drain"), redis_url)
    eventually(lambda: len(lines(tmp_path)) > 20, "output")
    run.process.send_signal(signal.SIGINT)
    done = run.finish()
    report = json.loads(done.stdout)
    assert done.returncode == 130, done.stderr
    assert report["status"] == "stopped"
    nodes = {node["name"]: node for node in report["nodes"]}
    assert nodes["numbers"]["sent"] == nodes["there"]["received"] == nodes["file"]["received"] == len(lines(tmp_path))
    assert lines(tmp_path) == list(range(len(lines(tmp_path))))


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM")])
def test_told_twice_it_stops_now(
    shared_worker: StartWorker, redis_url: str, redis_client: redis.Redis, tmp_path: Path, first: str, second: str
) -> None:
    shared_worker("twice", pool="solo", config=CONFIG)
    # A second of work in each message, and a window full of them: to drain would take a minute.
    run = start_run(endless(tmp_path, "twice", delay=1.0), redis_url)
    eventually(lambda: len(lines(tmp_path)) > 1, "output")
    run.process.send_signal(signal.Signals[first])
    eventually(lambda: f"{first}: finishing" in run.err.read_text(), "its word")
    run.process.send_signal(signal.Signals[second])
    done = run.finish()
    report = json.loads(done.stdout)
    ending = 130 if second == "SIGINT" else 1
    assert (done.returncode, report["status"]) == (ending, "cancelled"), done.stderr
    assert f"stopped by a second {second}" in done.stderr
    assert redis_client.get(keys.USUAL.run(report["run"])) == b"cancelled"
    assert lines(tmp_path) == list(range(len(lines(tmp_path))))  # what was written is whole


def test_sigterm_drains_for_a_while_and_then_stops(
    start_worker: StartWorker, redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    worker = start_worker("term", pool="solo", config=CONFIG)
    run = start_run(endless(tmp_path, "term"), redis_url)
    eventually(lambda: len(lines(tmp_path)) > 20, "output")
    run.process.send_signal(signal.SIGTERM)
    done = run.finish()
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"]) == (0, "stopped"), done.stderr
    assert lines(tmp_path) == list(range(next(n["sent"] for n in report["nodes"] if n["name"] == "numbers")))
    assert redis_client.get(keys.USUAL.run(report["run"])) == b"finished"
    worker.stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["solo", *(["prefork", "threads"] if LONG else [])])
def test_after_kill_9_nobody_works_for_it_longer_than_its_lease_and_its_keys_go(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path, pool: str
) -> None:
    url = private_redis.url
    worker = start_worker(f"late{pool}", url=url, pool=pool, concurrency=1, config=CONFIG)
    diary = tmp_path / "diary"
    script = f"""
from celerypipe import Message, Runner
from tests.runs.pipelines import warped
pipeline = warped("tests.nodes.remote.Nap", "late{pool}", configuration={{"diary": {str(diary)!r}}})
list(Runner({url!r}).stream(pipeline, [Message(300.0), Message(0.0), Message(0.0)]))
"""
    runner = start("-c", script)
    eventually(lambda: diary.exists() and diary.read_text(), "a message in update")
    runner.kill()
    with connect(url) as client:
        (run,) = (name.decode().rpartition(":")[2] for name in client.scan_iter("celerypipe:about:*"))
        ours = list(client.scan_iter(f"celerypipe:*:{run}*"))
        assert ours
        assert all(client.pttl(name) > 0 for name in ours)
        if pool != "threads":  # its worker is free again: solo and prefork interrupt the work of the dead one
            (out,) = Runner(url).stream(warped("tests.nodes.remote.Echo", f"late{pool}"), [Message(1)])
            assert out.payload == 1
        eventually(lambda: not client.exists(keys.USUAL.run(run)), "word of its end")
        eventually(lambda: not client.exists(f"{keys.USUAL.bell(run, 'there')}0"), "a free bell")
    assert diary.read_text() == "300.0\n"  # nothing that waited behind it was begun
    worker.kill()  # a thread cannot be interrupted
