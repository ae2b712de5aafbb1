"""The session behind the calls of a runner: seen and cancelled from outside, left unclosed, used by many threads."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

import celerypipe
from celerypipe import NodeFailed, RunCancelled, Runner
from celerypipe.mailbox.blob.blob import is_shared
from celerypipe.mailbox.cancellation import cancel
from celerypipe.mailbox.status import read_status
from celerypipe.redis.connection import Client, connect
from celerypipe.runner.functions.call import outcome_of
from tests.nodes import called
from tests.nodes.called import CONFIG
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.command import start


def test_it_is_seen_and_cancelled_from_outside(runner: Runner, redis_client: Client, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    call = runner.submit(called.gate, str(begun), str(tmp_path / "never"))
    last = runner.submit(called.same, call)
    eventually(begun.exists, "the call at work")
    assert runner._session is not None
    (run,) = [run for run in read_status(redis_client).runs if run.id == runner._session.course.run_id]
    assert (run.pipeline, run.state) == ("functions", "running")
    cancel(redis_client, run.id)
    with pytest.raises(RunCancelled, match="was cancelled from outside"):
        call.result(30)
    assert isinstance(last.exception(30), NodeFailed | RunCancelled)
    assert runner.submit(called.same, 1).result(30) == 1, "the next call begins a new session"


def test_calls_of_many_threads(runner: Runner) -> None:
    found: list[int] = []

    def work(number: int) -> None:
        last = runner.submit(called.same, number)
        for _ in range(40):
            last = runner.submit(called.total, [last, runner.submit(called.same, 1)])
        found.append(last.result(50))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(40, 48))


def test_a_runner_that_nobody_closed_ends_when_it_is_let_go(
    shared_worker: StartWorker, redis_url: str, redis_client: Client
) -> None:
    shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    one = Runner(redis_url)
    call = one.submit(called.nap, 0.2, "slept")
    session = one._session
    assert session is not None
    del one
    gc.collect()
    assert call.result(30) == "slept"
    run = session.course.run_id
    eventually(lambda: redis_client.get(f"celerypipe:run:{run}") == b"finished", "the end of its session")


def test_an_executor_that_nobody_shut_down_ends_when_it_is_let_go() -> None:
    executor = Runner(local=True).executor()
    call = executor.submit(called.nap, 0.1, "slept")
    session = executor._session
    assert session is not None
    del executor
    gc.collect()
    assert call.result(30) == "slept"
    eventually(session._ended.is_set, "the end of its session")


def test_a_session_that_was_closed_is_gone() -> None:
    runner, executor = Runner(local=True), Runner(local=True).executor()
    sessions = []
    for each in (runner, runner, executor):
        assert each.submit(called.same, 1).result(30) == 1
        sessions.append(weakref.ref(each._session))
        runner.close()
    executor.shutdown()
    executor._session = None

    def gone() -> bool:
        gc.collect()
        return [session() for session in sessions] == [None] * 3

    eventually(gone, "the end of all of them")


def test_results_of_a_runner_that_nobody_holds() -> None:
    assert list(Runner(local=True).map(called.add, range(1000), 1)) == list(range(1, 1001))


def test_an_event_loop_goes_on_while_a_file_is_sent(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path
) -> None:
    start_worker("calls", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    files = []
    for content in (b"first", b"other one"):
        (tmp_path / content.decode()).write_bytes(content)
        files.append(celerypipe.file(tmp_path / content.decode()))

    async def main() -> int:
        assert await runner.asubmit(called.size, files[0]) == 5
        assert private_redis.process is not None
        private_redis.process.send_signal(signal.SIGSTOP)
        sending = asyncio.create_task(runner.asubmit(called.size, files[1]))
        await asyncio.sleep(0)  # now it is at it
        private_redis.process.send_signal(signal.SIGCONT)
        return await sending

    with Runner(private_redis.url) as runner:
        assert asyncio.run(main()) == 9


@pytest.mark.parametrize("way", ["map", "await"])
def test_a_callback_may_wait_for_any_call(runner: Runner, way: str) -> None:
    found: list[Any] = []
    told = threading.Event()

    async def awaited() -> list[int]:
        return [await runner.asubmit(called.same, number) for number in range(3)]

    def tell(_: object) -> None:
        values = asyncio.run(awaited()) if way == "await" else runner.map(called.same, range(3), ordered=False)
        found.extend(sorted(values))
        told.set()

    runner.submit(called.nap, 0.1).add_done_callback(tell)
    assert told.wait(30)
    assert found == [0, 1, 2]


SCRIPT = """
import sys
from celerypipe import Runner
from tests.nodes import called

runner = Runner(sys.argv[1])
print(runner.submit(called.same, 5).result(30))
runner.submit(called.gate, sys.argv[2], sys.argv[3])
"""


def test_a_process_that_ends_without_closing_cancels(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path
) -> None:
    start_worker("calls", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ended = start(script, private_redis.url, tmp_path / "begun", tmp_path / "never").finish()
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "5\n", "")
    with Runner(private_redis.url) as runner:
        assert runner.submit(called.same, 1).result(30) == 1, "its worker is free"


def test_an_input_that_a_worker_does_not_see_goes_through_redis(runner: Runner) -> None:
    large = runner.submit(called.large, 4)
    assert large.exception(30) is None
    session, outcome = runner._session, outcome_of(large)
    assert session is not None
    assert outcome is not None

    def place() -> str:
        assert outcome.sealed is not None
        assert outcome.sealed.blob is not None
        return outcome.sealed.blob.reference

    assert is_shared(place())
    session._mending._see_to(outcome)  # as for a worker on another machine that said so
    assert not is_shared(place())
    assert runner.submit(called.first_and_length, large).result(40) == (4.0, 300_000)
    assert large.result(30)[0] == 4.0


def test_a_burst_leaves_nothing_behind(runner: Runner, redis_url: str) -> None:
    with connect(redis_url) as client:
        before = set(client.scan_iter("celerypipe:*"))
        with Runner(redis_url) as other:
            calls = [other.submit(called.first_and_length, other.submit(called.large, number)) for number in range(30)]
            assert [call.result(30)[0] for call in calls] == list(range(30))
            assert other._session is not None
            run = other._session.course.run_id.encode()
        left = {key.split(b":")[1] for key in set(client.scan_iter("celerypipe:*")) - before if run in key}
        assert left <= {b"run", b"about", b"batch", b"trace"}, "what says how it ended goes with its time"


def test_who_cancels_does_not_wait_for_who_sends() -> None:
    """Who sends the next calls holds the session's lock and looks at a call; who cancels holds that call's."""
    with Runner(local=True) as runner:
        call = runner.submit(called.nap, 20)
        call.add_done_callback(bool)
        assert runner._session is not None
        with runner._session._lock:
            cancelling = threading.Thread(target=call.cancel)
            cancelling.start()
            cancelling.join(10)
            assert not cancelling.is_alive()
