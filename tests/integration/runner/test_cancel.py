"""``celerypipe cancel`` and ``Runner.cancel`` on every pool: the runner ends, workers are free, in two seconds."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from celerypipe import Message, NodeFailed, Pipeline, RunCancelled, Runner
from celerypipe.errors import UnknownRun
from celerypipe.mailbox import cancellation
from celerypipe.mailbox.cancellation import cancel
from celerypipe.mailbox.status import read_status
from celerypipe.redis.connection import Client
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import results
from tests.runs.streaming import endless, lines, start_run
from tests.servers import FEW_POOLS, StartWorker, eventually
from tests.servers.command import celerypipe
from tests.servers.extent import LONG

#: What is promised, in seconds; a machine that runs other tests at the same time gets more, and what is at work here
#: would take for ever.
PROMISE = 2.0 if LONG else 10.0

#: With one process the next run shows that it is free.
POOLS = [("solo", 1), ("prefork", 1), ("threads", 2)]


class Going:
    """A run in a thread of this process whose only message is at work until ``gate`` is there."""

    def __init__(self, client: Client, url: str, queue: str, gate: Path) -> None:
        self.runner = Runner(url)
        self.error: BaseException | None = None
        self.ended_at = 0.0
        self._stream = self.runner.stream(warped("tests.nodes.remote.Gate", queue), [Message(str(gate))])
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

        def at_work() -> set[str]:
            workers = [worker for worker in read_status(client).workers if queue in worker.queues]
            return {busy.run for worker in workers for busy in worker.busy}

        (self.id,) = eventually(at_work, "the message at work")

    def _read(self) -> None:
        try:
            list(self._stream)
        except BaseException as error:  # noqa: BLE001  # looked at by the test
            self.error = error
        self.ended_at = time.monotonic()

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_cancelled_from_outside_a_run_is_over_in_two_seconds(
    start_worker: StartWorker,
    redis_url: str,
    redis_client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pool: str,
    slots: int,
) -> None:
    if pool == "threads" and not LONG:  # on a busy machine it takes longer until each keeper has looked
        monkeypatch.setattr(cancellation, "LOOK", 5.0)
        monkeypatch.setattr(cancellation, "PATIENCE", 5.5)
    worker = start_worker(f"cancel{pool}", pool=pool, concurrency=slots, config=CONFIG)
    gate = tmp_path / "open"
    going = Going(redis_client, redis_url, f"cancel{pool}", gate)
    start = time.monotonic()
    done = cancel(redis_client, going.id)
    assert time.monotonic() - start < PROMISE
    going.join()
    assert going.ended_at - start < PROMISE
    assert isinstance(going.error, RunCancelled)
    assert done.runner_ended
    assert (done.run.pipeline, done.run.state) == ("test", "running")
    if pool == "threads":
        # It cannot be interrupted: it is said who is still at it, and what comes of it goes nowhere.
        (busy,) = done.busy
        assert (busy.run, busy.node, busy.pid) == (going.id, "there", worker.presence["pid"])
        gate.touch()
        assert "broken off" not in worker.wait_for_text("; run cancelled'")
        assert "'1 message, 0 failed, " in worker.text()
        assert not redis_client.exists(f"celerypipe:reply:{going.id}")
    else:
        assert done.busy == ()
    # The worker serves others, at once where the work was stopped: nobody opened the gate.
    assert results(Runner(redis_url), warped("tests.nodes.remote.Echo", f"cancel{pool}"), [1, 2]) == [1, 2]


@pytest.mark.parametrize(("pool", "slots"), FEW_POOLS[1:])
def test_a_runner_cancels_its_run_in_two_seconds(
    start_worker: StartWorker, redis_url: str, redis_client: Client, tmp_path: Path, pool: str, slots: int
) -> None:
    start_worker(f"quit{pool}", pool=pool, concurrency=slots, config=CONFIG)
    gate = tmp_path / "open"
    going = Going(redis_client, redis_url, f"quit{pool}", gate)
    start = time.monotonic()
    going.runner.cancel()
    going.join()
    assert going.ended_at - start < PROMISE
    assert isinstance(going.error, RunCancelled)
    assert going.runner.report is not None
    assert going.runner.report.status == "cancelled"
    if pool == "threads":
        gate.touch()
    assert results(Runner(redis_url), warped("tests.nodes.remote.Echo", f"quit{pool}"), [1, 2]) == [1, 2]


def test_a_local_node_that_hangs_does_not_hold_a_cancelled_run_up(
    shared_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    diary = tmp_path / "diary"
    there = {"name": "there", "type": "proc", "mark": "tests.nodes.remote.Echo", "warped": True}
    there["warp_configuration"] = {"queue": "tsolo"}
    here = {"name": "here", "type": "proc", "mark": "tests.nodes.remote.Nap", "configuration": {"diary": str(diary)}}
    runner = Runner(redis_url)
    stream = runner.stream(Pipeline(name="hangs", nodes=[there, here], links=[("there", "here")]), [Message(60.0)])
    ended: list[float] = []

    def read() -> None:
        with pytest.raises(RunCancelled):
            list(stream)
        ended.append(time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    eventually(diary.exists, "the hanging node")
    start = time.monotonic()
    runner.cancel()
    reader.join(20)
    assert ended[0] - start < PROMISE


def test_the_command_stops_a_run_of_another_process(
    start_worker: StartWorker, redis_url: str, redis_client: Client, tmp_path: Path
) -> None:
    start_worker("stopped", pool="solo", config=CONFIG)
    started = start_run(endless(tmp_path, "stopped"), redis_url)
    eventually(lambda: len(lines(tmp_path)) > 20, "output")
    (run,) = [each for each in read_status(redis_client).runs if each.pid == started.process.pid]
    assert (run.pipeline, run.state) == ("endless", "running")
    wrong = celerypipe("cancel", run.id[:-1] + "x", "--redis", redis_url)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert f"did you mean '{run.id}'?" in wrong.stderr
    assert f"{run.id} (endless)" in wrong.stderr
    near = [each.id for each in read_status(redis_client).runs]
    size = next(size for size in range(1, 13) if [each[:size] for each in near].count(run.id[:size]) == 1)
    done = celerypipe("cancel", run.id[:size], "--redis", redis_url)
    assert (done.returncode, done.stderr) == (0, f"Redis: {redis_url}, named by --redis\n")
    assert f"run {run.id} (endless) is cancelled\n" in done.stdout
    ended = started.finish()
    assert ended.returncode == 1, ended.stderr
    assert json.loads(ended.stdout)["status"] == "cancelled"
    assert f"RunCancelled: run {run.id} was cancelled from outside" in ended.stderr


def test_a_run_that_is_over_is_left_as_it_is_and_an_unknown_one_is_named(
    shared_worker: StartWorker, redis_url: str, redis_client: Client
) -> None:
    shared_worker("tsolo", pool="solo", concurrency=1, config=CONFIG)
    runner = Runner(redis_url)
    assert results(runner, warped("tests.nodes.remote.Echo", "tsolo"), [1]) == [1]
    assert runner.report is not None
    done = cancel(redis_client, runner.report.run)
    assert (done.run.state, done.busy) == ("finished", ())
    assert redis_client.get(f"celerypipe:run:{runner.report.run}") == b"finished"
    with pytest.raises(NodeFailed):
        results(runner, warped("tests.nodes.remote.Broken", "tsolo"), [1])
    failed = cancel(redis_client, runner.report.run)
    assert (failed.run.state, failed.busy) == ("failed", ())
    assert redis_client.get(f"celerypipe:run:{runner.report.run}") == b"failed"
    assert results(runner, warped("tests.nodes.remote.Echo", "tsolo"), [1]) == [1]
    said = celerypipe("cancel", runner.report.run, "--redis", redis_url, "--json")
    assert (said.returncode, json.loads(said.stdout)["run"]["state"]) == (0, "finished")
    for word in ("nonsense", ""):
        with pytest.raises(UnknownRun, match=f"there is no run '{word}'"):
            cancel(redis_client, word)
