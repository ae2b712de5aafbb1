"""``celerypipe status``: runs, queues, mailboxes and workers, as real ones leave them in Redis."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from celerypipe import RunCancelled, Runner
from celerypipe.celery.application import app
from celerypipe.mailbox.status import read_status
from celerypipe.redis.connection import connect
from celerypipe.redis.url import read_address
from celerypipe.worker.served import processes_of
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import results
from tests.runs.streaming import endless, lines, start_run
from tests.servers import POOLS, RedisServer, StartWorker, eventually
from tests.servers.command import celerypipe
from tests.servers.task import connection_to


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_it_says_what_each_worker_is_busy_with(
    private_redis: RedisServer, start_worker: StartWorker, tmp_path: Path, pool: str, slots: int
) -> None:
    url = private_redis.url
    worker = start_worker("busy", url=url, pool=pool, concurrency=slots, config=CONFIG)
    gate = tmp_path / "open"
    runner = Runner(url)
    pipeline = warped("tests.nodes.remote.Gate", "busy", limits={"parallel": 1})
    reader = threading.Thread(target=results, args=(runner, pipeline, [str(gate), 1, 2, 3]))
    reader.start()
    with connect(url) as client:
        eventually(lambda: any(each.busy for each in read_status(client).workers), "a busy worker")
        eventually(lambda: read_status(client).mailboxes[0].out == 4, "all messages")
        found = read_status(client)
        gate.touch()
        reader.join(20)
        after = read_status(client)
    assert runner.report is not None
    (run,) = found.runs
    assert (run.id, run.pipeline, run.state) == (runner.report.run, "test", "running")
    assert run.pid == os.getpid()
    assert 0 <= run.age < 60
    (box,) = found.mailboxes
    assert (box.run, box.node, box.mark, box.queue) == (run.id, "there", "tests.nodes.remote.Gate", "busy")
    assert (box.out, box.slots) == (4, 1)
    assert box.oldest is not None
    (queue,) = found.queues
    assert (queue.name, queue.tasks, queue.messages, queue.workers, queue.slots) == ("busy", 0, 4, 1, slots)
    assert queue.oldest == box.oldest
    (there,) = found.workers
    assert (there.pid, there.pool, there.slots, there.queues) == (worker.presence["pid"], pool, slots, ("busy",))
    (busy,) = there.busy
    assert (busy.run, busy.node) == (run.id, "there")
    assert (busy.pid == there.pid) == (pool != "prefork")
    (ended,) = after.runs
    assert ended.state == "finished"
    assert [each.out for each in after.mailboxes] == [0]
    assert after.workers[0].busy == ()


def test_a_slot_of_a_worker_that_is_gone_is_not_at_work(
    private_redis: RedisServer, start_doomed: StartWorker, tmp_path: Path
) -> None:
    url, gate = private_redis.url, tmp_path / "open"
    worker = start_doomed("killed", url=url, pool="solo", config=CONFIG)
    runner = Runner(url)

    def read() -> None:
        with pytest.raises(RunCancelled):
            results(runner, warped("tests.nodes.remote.Gate", "killed"), [str(gate), 1])

    reader = threading.Thread(target=read)
    reader.start()
    with connect(url) as client:
        eventually(lambda: [box.slots for box in read_status(client).mailboxes] == [1], "a busy worker")
        worker.kill()
        eventually(lambda: not read_status(client).workers, "the end of the worker")
        (box,) = read_status(client).mailboxes
        assert (box.out, box.slots) == (2, 0)
        assert box.waiting == 2, "another worker has to take what it had in hand"
    runner.cancel()
    reader.join(20)


def test_a_queue_that_nobody_serves_shows_what_waits_in_it(private_redis: RedisServer) -> None:
    url = private_redis.url
    runner = Runner(url)

    def read() -> None:
        with pytest.raises(RunCancelled):
            results(runner, warped("tests.nodes.remote.Echo", "desert"), [1, 2])

    reader = threading.Thread(target=read)
    reader.start()
    with connect(url) as client:
        eventually(lambda: [each.out for each in read_status(client).mailboxes] == [2], "two messages")
        with connection_to(url) as connection:
            producer = app.amqp.Producer(connection, auto_declare=False)
            app.send_task("somebody.elses", queue="desert", producer=producer, declare=())
        (queue,) = read_status(client).queues
        (box,) = read_status(client).mailboxes
    assert (queue.name, queue.tasks, queue.messages, queue.workers) == ("desert", 1, 2, 0)
    assert box.waiting == 2
    done = celerypipe("status", "--redis", url)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("desert")]
    assert line.split()[:3] == ["desert", "1", "2"]
    said = json.loads(celerypipe("status", "--redis", url, "--json").stdout)
    assert [queue["name"] for queue in said["queues"]] == ["desert"]
    assert said["runs"][0]["pipeline"] == "test"
    runner.cancel()
    reader.join(20)


def test_a_run_whose_runner_was_killed_is_lost_and_then_gone(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path
) -> None:
    url = private_redis.url
    start_worker("lost", pool="solo", url=url, config=CONFIG)
    started = start_run(endless(tmp_path, "lost"), url)
    eventually(lambda: len(lines(tmp_path)) > 5, "output")
    started.kill()
    with connect(url) as client:
        (run,) = read_status(client).runs
        assert run.pid == started.process.pid
        client.delete(f"celerypipe:run:{run.id}")  # ten seconds later
        (run,) = read_status(client).runs
        assert run.state == "lost"
        done = celerypipe("cancel", run.id, "--redis", url)
        assert done.returncode == 0
        assert f"its runner on {run.host} (pid {run.pid}) does not answer any more" in done.stdout
        client.delete(f"celerypipe:about:{run.id}")  # a minute later
        assert read_status(client).runs == ()


def test_an_empty_redis_says_how_to_begin(private_redis: RedisServer) -> None:
    done = celerypipe("status", "--redis", private_redis.url)
    assert done.returncode == 0
    command = f"CELERYPIPE_REDIS_URL='{read_address(private_redis.url)}' celery -A celerypipe worker -Q QUEUE"
    assert f"no run is active, and no worker is alive; start one: {command}" in done.stdout


def test_a_redis_that_is_not_there_is_said(tmp_path: Path) -> None:
    for command in (("status",), ("cancel", "0123")):
        done = celerypipe(*command, "--redis", f"unix://{tmp_path}/none.sock")
        assert done.returncode == 69
        assert "Redis is not there" in done.stderr


def test_looking_writes_nothing(private_redis: RedisServer) -> None:
    """A dashboard needs no right to write."""
    with connect(private_redis.url) as client:
        client.execute_command("ACL", "SETUSER", "eyes", "on", ">word", "~*", "+@read", "+time", "+@connection")
    with connect(private_redis.url.replace("unix://", "unix://eyes:word@")) as client:
        assert read_status(client).runs == ()


def test_a_process_that_just_starts_is_not_told_of_yet() -> None:
    """It has no number: a presence with a hole in it counts as none of ours, and its queue as one without a worker."""
    assert processes_of(SimpleNamespace(info={"processes": [11, None, 12]})) == [11, 12]
