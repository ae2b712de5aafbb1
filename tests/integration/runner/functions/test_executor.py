"""``Runner.executor()``: what a user of ProcessPoolExecutor relies on, after the tests of CPython."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError, Executor, as_completed, wait
from pathlib import Path

import pytest

from celerypipe import NodeFailed, Runner
from celerypipe.runner.functions.executor import CallExecutor
from tests.nodes import called
from tests.nodes.called import CONFIG
from tests.servers import StartWorker, eventually


@pytest.fixture
def executor(shared_worker: StartWorker, redis_url: str) -> Iterator[CallExecutor]:
    """An executor with two processes."""
    shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    with Runner(redis_url).executor() as executor:
        yield executor


def test_submit_and_its_arguments(executor: Executor) -> None:
    assert executor.submit(called.add, 2, 8).result() == 10
    assert executor.submit(called.add, 1, other=2).result() == 3
    assert executor.submit(called.described, 1, fn=2, self=3).result() == called.described(1, fn=2, self=3)
    with pytest.raises(TypeError):
        executor.submit()  # type: ignore[call-arg]


def test_map_is_like_map(executor: Executor) -> None:
    assert list(executor.map(called.add, range(10), range(10))) == list(map(called.add, range(10), range(10)))
    assert list(executor.map(called.add, range(3), itertools.count(), chunksize=3)) == [0, 2, 4]
    assert list(executor.map(called.same, [])) == []
    assert list(executor.map(called.nap, [0.3, 0.0], ["slow", "fast"])) == ["slow", "fast"]


def test_it_is_an_executor_for_an_event_loop_too(executor: Executor) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, called.add, number, 1) for number in range(5)))

    assert asyncio.run(main()) == [1, 2, 3, 4, 5]


def test_map_raises_where_the_call_failed(executor: Executor) -> None:
    results = executor.map(called.refuse, [0, 1])
    with pytest.raises(NodeFailed, match="0 is not to my taste"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_with_a_timeout(executor: Executor) -> None:
    found = []

    def read() -> None:
        for result in executor.map(called.nap, [0.0, 0.0, 30.0], timeout=2):
            found.append(result)  # noqa: PERF402  # it raises in between

    with pytest.raises(TimeoutError):
        read()
    assert found == [None, None]


def test_map_submits_at_once(executor: Executor, tmp_path: Path) -> None:
    executor.map(called.noted, [str(tmp_path / "marks")] * 3)
    eventually(lambda: (tmp_path / "marks").exists() and len((tmp_path / "marks").read_text().split()) == 3, "all")


def test_wait_in_its_ways(executor: Executor, tmp_path: Path) -> None:
    release = str(tmp_path / "release")
    held = executor.submit(called.gate, str(tmp_path / "begun"), release)
    quick = executor.submit(called.same, 1)
    assert wait([held, quick], return_when=FIRST_COMPLETED).done == {quick}
    bad = executor.submit(called.refuse, 1)
    found = wait([held, bad], return_when=FIRST_EXCEPTION)
    assert (found.done, found.not_done) == ({bad}, {held})
    Path(release).touch()
    assert set(as_completed([held, quick, bad, quick])) == {held, quick, bad}


def test_callbacks_are_called_with_the_call_and_their_errors_are_nobodys(executor: Executor) -> None:
    heard: list[object] = []

    def raises(_: object) -> None:
        raise ValueError("a bad callback")

    calls = [executor.submit(called.same, 1), executor.submit(called.refuse, 1)]
    for call in calls:
        call.add_done_callback(raises)
        call.add_done_callback(heard.append)
    wait(calls)
    eventually(lambda: set(heard) == set(calls), "both callbacks")


def test_shutdown_waits_and_refuses_what_comes_after(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    executor = Runner(redis_url).executor()
    calls = [executor.submit(called.nap, 0.05, number) for number in range(10)]
    executor.shutdown()
    assert [call.result(0) for call in calls] == list(range(10))
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(called.same, 1)
    executor.shutdown()
    idle = Runner(redis_url).executor()
    idle.shutdown()
    with pytest.raises(RuntimeError):
        idle.submit(called.same, 1)


def test_shutdown_without_waiting_lets_calls_come_through(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    executor = Runner(redis_url).executor()
    call = executor.submit(called.nap, 0.3, "slept")
    began = time.monotonic()
    executor.shutdown(wait=False)
    assert time.monotonic() - began < 10
    assert call.result(30) == "slept"


def test_shutdown_can_cancel_what_nobody_began(shared_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    executor = Runner(redis_url).executor()
    release = tmp_path / "release"
    held = [executor.submit(called.gate, str(tmp_path / f"begun{n}"), str(release), n) for n in range(2)]
    eventually(lambda: all((tmp_path / f"begun{n}").exists() for n in range(2)), "both at work")
    waiting = [executor.submit(called.same, number) for number in range(20)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(call.cancelled() for call in waiting)
    with pytest.raises(CancelledError):
        waiting[0].result()
    release.touch()
    assert [call.result(30) for call in held] == [0, 1]
