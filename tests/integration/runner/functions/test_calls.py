"""Functions called on real workers: futures, exact values, states, cancelling, and clear refusals."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, InvalidStateError, as_completed, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import CodecError, ConfigError, NodeFailed, NodeTimeout, RedisUnavailable, Runner, UnknownMark, node
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.redis.connection import Client
from tests.nodes import called
from tests.nodes.called import CONFIG
from tests.servers import FEW_POOLS, RedisServer, StartWorker, eventually
from tests.servers.command import start

POOLS = [("solo", 1), ("prefork", 1), ("threads", 2)]


EXACT = [
    None,
    3,
    1.0,
    (1, 2, 3),
    [1, 2, 3],
    {"a": (1, [2])},
    np.float32(0.1),
    np.int16(7),
    b"bytes",
    "text",
    2**100,
    {1, 2},
    1 + 2j,
]


@pytest.mark.parametrize("value", EXACT, ids=repr)
def test_values_and_types_are_the_same_here_and_there(either: Runner, value: Any) -> None:
    found = either.submit(called.same, value).result(30)
    assert (type(found), found) == (type(value), value)


def test_arrays_are_the_same_here_and_there(either: Runner) -> None:
    for call, direct in (
        (either.submit(called.ones, 2, 3, 4), called.ones(2, 3, 4)),
        (either.submit(called.large, 7), called.large(7)),
        (either.submit(called.same, np.arange(6, dtype=">i2").reshape(2, 3).T), np.arange(6).reshape(2, 3).T),
    ):
        array = call.result(30)
        assert array.shape == direct.shape
        assert (array == direct).all()
    assert either.submit(called.same, np.zeros(3, ">f4")).result(30).dtype == np.dtype(">f4")
    assert either.submit(called.many_words, 50_000).result(30) == called.many_words(50_000)


def test_arguments_are_bound_as_in_python(either: Runner) -> None:
    assert either.submit(called.add, 1, 2).result(30) == 3
    assert either.submit(called.add, other=3, one=4).result(30) == 7
    assert either.submit(called.nothing).result(30) is None
    said = either.submit(called.described, 1, (2,), x=None).result(30)
    assert said == called.described(1, (2,), x=None)


def test_a_byte_budget_holds_calls_back_and_none_for_ever(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    with Runner(redis_url, byte_budget=1_000_000) as runner:
        arrays = [np.full(100_000, number, np.float64) for number in range(40)]  # none of them fits beside another
        calls = [runner.submit(called.first_and_length, array) for array in arrays]
        calls += [runner.submit(called.first_and_length, runner.submit(called.same, array)) for array in arrays]
        assert [call.result(40)[0] for call in calls] == [*range(40), *range(40)]
        assert repr(calls[0]) == "<Call of first_and_length: done>"


def test_a_call_knows_who_ran_it_and_how_long(runner: Runner, shared_worker: StartWorker) -> None:
    before = time.time()
    call = runner.submit(called.nap, 0.2, "slept")
    assert call.result(30) == "slept"
    assert call.state == "done"
    assert before <= call.timing.submitted <= time.time()
    assert 0.2 <= call.timing.ran <= call.timing.seconds
    assert call.timing.worker.split(", process ")[1].isdigit()
    assert call.function == "nap"


def test_a_failure_has_the_traceback_of_over_there(either: Runner) -> None:
    call = either.submit(called.refuse, 3)
    with pytest.raises(NodeFailed, match="refuse: ValueError: 3 is not to my taste") as caught:
        call.result(30)
    assert "in refuse" in caught.value.remote_traceback
    assert caught.value.__cause__ is not None
    assert call.exception() is caught.value
    assert call.state == "failed"


def test_a_failure_ends_no_other_call(either: Runner) -> None:
    calls = [either.submit(called.refuse if number % 3 == 0 else called.same, number) for number in range(30)]
    bad = [either.submit(called.misconfigured), either.submit(called.unsendable)]
    assert [type(call.exception(30)) for call in calls[::3]] == [NodeFailed] * 10
    assert [call.result(30) for call in calls if call.exception() is None] == [n for n in range(30) if n % 3]
    assert "the threshold is too high" in str(bad[0].exception(30))
    assert "cannot travel" in str(bad[1].exception(30))


def test_a_failure_that_is_hard_to_tell_of_is_told(either: Runner) -> None:
    assert "Speechless: its text cannot be had" in str(either.submit(called.fail_oddly, "speechless").exception(30))
    assert "no such file: " in str(either.submit(called.fail_oddly, "name").exception(30))


def test_a_timeout_says_where_the_time_went(runner: Runner) -> None:
    assert runner.submit(called.hurried, 0).result(30) == 0  # its worker is awake
    call = runner.submit(called.hurried, 20)
    with pytest.raises(NodeTimeout, match=r"hurried: 2.0 s exceeded \(.*running on"):
        call.result(30)
    assert call.state == "timed out"
    assert runner.submit(called.hurried, 0).result(30) == 0


@pytest.mark.parametrize(("pool", "slots"), FEW_POOLS)
def test_a_call_that_runs_is_cancelled(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path, pool: str, slots: int
) -> None:
    start_worker("calls", url=private_redis.url, pool=pool, concurrency=slots, config=CONFIG)
    begun = tmp_path / "begun"
    with Runner(private_redis.url) as runner:
        call = runner.submit(called.gate, str(begun), str(tmp_path / "never"))
        eventually(begun.exists, "the call at work")
        eventually(call.running, "word of it here")
        assert call.state == "running"
        assert call.cancel()
        with pytest.raises(CancelledError):
            call.result(0)
        assert (call.state, call.cancelled(), call.done()) == ("cancelled", True, True)
        assert runner.submit(called.same, 5).result(30) == 5, "the worker, or a thread of it, is free again"
        (tmp_path / "never").touch()  # a thread cannot be interrupted


def test_what_waits_and_what_is_queued_is_cancelled_and_never_starts(runner: Runner, tmp_path: Path) -> None:
    release, marks = tmp_path / "release", tmp_path / "marks"
    holding = [runner.submit(called.gate, str(tmp_path / f"begun{n}"), str(release), 1) for n in range(2)]
    eventually(lambda: all((tmp_path / f"begun{n}").exists() for n in range(2)), "both processes busy")
    queued = [runner.submit(called.noted, str(marks), number) for number in range(600)]
    waiting = runner.submit(called.noted, str(marks), holding[0])
    assert (waiting.state, queued[-1].state) == ("waiting", "queued")
    assert all(call.cancel() for call in [*queued, waiting])
    session = runner._session
    assert session is not None
    eventually(lambda: not session._withdrawals.waiting and not session._withdrawals.late, "what was sent taken back")
    release.touch()
    assert [call.result(30) for call in holding] == [1, 1]
    assert runner.submit(called.same, 0).result(30) == 0
    assert [holding[0].cancel(), holding[0].cancelled(), holding[0].state] == [False, False, "done"]
    runner.close()
    assert not marks.exists()


def test_a_function_that_takes_nothing_is_called_and_is_no_node(either: Runner) -> None:
    assert either.submit(called.takes_nothing).result(30) == "of nothing"
    with pytest.raises(ConfigError, match=r"takes nothing: call it with Runner\.submit, or give it a first parameter"):
        Catalogue().find("tests.nodes.called.takes_nothing").create({})


def test_futures_of_the_standard_library(runner: Runner) -> None:
    calls = [runner.submit(called.same, number) for number in range(20)]
    assert sorted(call.result() for call in as_completed(calls, 30)) == list(range(20))
    done, rest = wait([runner.submit(called.refuse, 1), *calls], 30)
    assert (len(done), rest) == (21, set())
    with pytest.raises(TimeoutError):
        (slow := runner.submit(called.nap, 20)).result(0.01)
    done, rest = wait([slow], 0.01)
    assert (done, rest) == (set(), {slow})
    slow.cancel()
    assert wait([slow], 30).done == {slow}
    with pytest.raises(InvalidStateError, match="settled by its session"):
        calls[0].set_result(3)
    heard: list[Any] = []
    told = threading.Event()
    call = runner.submit(called.nap, 0.1, "slept")
    call.add_done_callback(lambda done: heard.append(done.result()))
    call.add_done_callback(lambda done: runner.submit(called.same, 1).result(30))  # may wait for others
    call.add_done_callback(lambda done: told.set())
    assert told.wait(30)
    call.add_done_callback(lambda done: heard.append("at once"))
    assert heard == ["slept", "at once"]


def test_in_an_event_loop(either: Runner) -> None:
    async def main() -> list[Any]:
        found = await asyncio.gather(*(either.asubmit(called.add, number, 1) for number in range(10)))
        found.append(await asyncio.wrap_future(either.submit(called.same, (1, 2))))
        found.append((await either.asubmit(called.large, 3))[0])
        with pytest.raises(NodeFailed, match="not to my taste"):
            await either.asubmit(called.refuse, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(either.asubmit(called.nap, 20), 0.2)
        (future := asyncio.wrap_future(call := either.submit(called.nap, 20))).cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        while not call.cancelled():
            await asyncio.sleep(0.01)
        return found

    assert asyncio.run(main()) == [*range(1, 11), (1, 2), 3.0]


def test_map_in_order_and_as_it_comes(either: Runner) -> None:
    assert list(either.map(called.add, range(1000), 5)) == list(range(5, 1005))
    assert sorted(either.map(called.add, range(1000), other=5, ordered=False)) == list(range(5, 1005))
    assert list(either.map(called.nothing, [1, 2])) == [None, None]
    assert list(either.map(called.same, [])) == []


def test_map_takes_values_as_it_needs_them_and_cancels_the_rest(runner: Runner) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = runner.map(called.same, endless())
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert len(taken) < 1000
    results.close()  # type: ignore[attr-defined]  # it is a generator
    failing = runner.map(called.refuse, [1, 2, 3])
    with pytest.raises(NodeFailed, match="1 is not to my taste"):
        next(failing)
    with pytest.raises(ConfigError, match="@node"):
        runner.map(called.undecorated, [1])


@pytest.mark.parametrize("ordered", [True, False])
def test_map_of_values_that_come_slowly(runner: Runner, tmp_path: Path, ordered: bool) -> None:
    marks, taken = tmp_path / "marks", []

    def slowly() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number
            eventually(lambda: marks.exists() and len(marks.read_text().split()) == len(taken), "its call")

    results = runner.map(called.noted_after, slowly(), str(marks), ordered=ordered)
    assert next(results) == 0
    assert len(taken) < 500, "it was not held back for the values after it"
    results.close()  # type: ignore[attr-defined]  # it is a generator


REFUSED = [
    (lambda value: value, "a lambda has no name"),
    (called.Doubling, "it is a class"),
    (called.Doubling().double, "a method of an object"),
    (called.undecorated, "put @node above it"),
    (called.of_message, "a node of pipelines"),
    (called.remembering, "it is stateful"),
    (called.awaiting, "is async, .* without awaiting it"),
    (len, "no function of yours; write one with def"),
    (str, "it is a class; write a function"),
]


@pytest.mark.parametrize(("function", "said"), REFUSED)
def test_what_cannot_be_called_is_refused_with_the_cure(function: Any, said: str) -> None:
    with Runner(local=True) as runner, pytest.raises(ConfigError, match=f"cannot be submitted: .*{said}"):
        runner.submit(function, 1)


def test_arguments_are_looked_at_before_anything_is_sent() -> None:
    with Runner(local=True) as runner:
        with pytest.raises(TypeError, match=r"add\(\): missing a required argument: 'one'; it takes \(one, other=0\)"):
            runner.submit(called.add)
        with pytest.raises(TypeError, match="unexpected keyword argument 'thrid'"):
            runner.submit(called.add, 1, thrid=3)
        with pytest.raises(CodecError, match=r"add\(\): the argument 'other' cannot travel: other\['x'\]\[1\]: "):
            runner.submit(called.add, 1, {"x": [0, object()]})
        with Runner(local=True) as another, pytest.raises(ValueError, match="submitted somewhere else"):
            another.submit(called.add, runner.submit(called.add, 1))


def test_a_function_of_a_script_is_for_this_process_alone(tmp_path: Path, redis_url: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom celerypipe import ConfigError, Runner, node\n"
        "@node\ndef twice(value): return 2 * value\n"
        "with Runner(local=True) as runner: print(runner.submit(twice, 4).result())\n"
        "try: Runner(sys.argv[1]).submit(twice, 4)\n"
        "except ConfigError as error: print(error)\n"
    )
    out = start(script, redis_url).finish().stdout.splitlines()
    assert out[0] == "8"
    assert "which no worker can import; move it" in out[1]


def test_a_function_whose_name_means_another_one_by_now_is_for_this_process_alone(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "@node(version='{0}')\ndef spectrum(value): return {0} * value\n{1} = spectrum\n"
    twins = "from celerypipe import node\n" + text.format(1, "first") + text.format(2, "second")
    (tmp_path / "twins.py").write_text(twins)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("twins")
    cells: dict[str, Any] = {"__name__": "__main__"}
    exec(twins, cells)  # noqa: S102  # as a notebook does
    with Runner(local=True) as runner:
        pairs = [(module.first, module.second), (cells["first"], cells["second"])]
        assert [[runner.submit(each, 4).result(30) for each in pair] for pair in pairs] == [[4, 8], [4, 8]]
    with Runner(redis_url) as runner:
        with pytest.raises(ConfigError, match="spectrum cannot be submitted: twins has another function of that name"):
            runner.submit(module.first, 4)
        with pytest.raises(
            ConfigError,
            match=r"__main__ is whatever was started, here .* and has no spectrum; write the module that has",
        ):
            runner.submit(cells["second"], 4)
        waiting = runner.submit(module.second, 4)
        assert (waiting.state, waiting.cancel()) == ("queued", True)


def test_a_function_that_the_workers_do_not_know(shared_worker: StartWorker, redis_url: str, runner: Runner) -> None:
    strange = type(called.same)(called.same.__code__, called.same.__globals__, "strange")
    strange.__qualname__, strange.__module__ = "strange", "tests.nodes.called"
    with pytest.raises(UnknownMark, match=r"no worker of queue 'calls' knows the mark 'tests.nodes.called.strange'"):
        runner.submit(node(queue="calls")(strange), 1)
    assert runner.submit(called.same, 1).result(30) == 1


def test_without_a_redis() -> None:
    with Runner() as runner, pytest.raises(ConfigError, match=r"a function needs a Redis: .*Embedded"):
        runner.submit(called.same, 1)
    with Runner("redis://localhost:1/0") as runner, pytest.raises(RedisUnavailable, match="Redis is not there"):
        runner.submit(called.same, 1)


def test_without_a_worker(redis_url: str) -> None:
    said: list[str] = []
    runner = Runner(redis_url, on_event=said.append)
    call = runner.submit(called.unserved, 1)
    with pytest.raises(TimeoutError, match=r"unserved: no result after 0.01 s; no worker serves queue 'nobody'"):
        call.result(0.01)
    assert "celery -A celerypipe worker -Q nobody" in said[0]
    runner.close(cancel=True)


def test_the_end_waits_for_calls_and_results_stay_readable(runner: Runner, redis_client: Client) -> None:
    with runner:
        calls = [runner.submit(called.large, number) for number in range(3)]
        slow = runner.submit(called.nap, 0.3, "slept")
    assert slow.state == "done"
    assert not [key for key in redis_client.scan_iter("celerypipe:mailbox:*") if b":large" in key]
    assert [call.result(0)[0] for call in calls] == [0.0, 1.0, 2.0]
    assert runner.submit(called.same, 1).result(30) == 1, "and it can begin anew"


def test_an_exception_in_the_block_cancels(runner: Runner, tmp_path: Path) -> None:
    calls = []

    def at_work() -> None:
        with runner:
            calls.append(runner.submit(called.gate, str(tmp_path / "begun"), str(tmp_path / "never")))
            eventually((tmp_path / "begun").exists, "the call at work")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        at_work()
    (call,) = calls
    assert call.state == "cancelled"


def test_calls_are_let_go_with_what_they_hold(runner: Runner, redis_client: Client) -> None:
    runner.submit(called.same, 1).result(30)
    session = runner._session
    assert session is not None
    for _ in range(4):
        calls = [runner.submit(called.same, number) for number in range(500)]
        assert sum(call.result(30) for call in calls) == sum(range(500))
    apart = [runner.submit(called.large, number) for number in range(40)]
    assert [call.exception(30) for call in apart] == [None] * 40
    held = [weakref.ref(call) for call in [*calls, *apart]]
    del calls, apart
    gc.collect()
    assert not [call for reference in held if (call := reference()) is not None]
    assert not session._ledger
    carrier = session._transport.carrier
    assert carrier is not None
    eventually(lambda: not carrier.blobs.living() and not carrier.blobs.garbage, "nothing of them in Redis")


def test_nobody_waits_for_ever_in_a_forked_child(runner: Runner, redis_url: str) -> None:
    call, large = runner.submit(called.nap, 1.0, "slept"), runner.submit(called.large, 1)
    executor = runner.executor()
    assert executor.submit(called.same, 1).result(30) == 1
    assert large.exception(30) is None
    read, write = os.pipe()
    child = os.fork()
    if not child:
        said = b"nothing"
        try:
            mine = runner.submit(called.same, 7).result(30)
            try:
                call.result(30)
            except RuntimeError as error:
                said = f"{mine} {error}".encode()
            refused = 0
            for what in (lambda: call.state, large.result, lambda: executor.submit(called.same, 1)):
                try:
                    what()
                except RuntimeError:  # it would write on a line of the parent, or wait for threads that are not here
                    refused += 1
            said += b" %d" % refused
            runner.close()
        finally:
            os.write(write, said)
            os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 1000)
    assert said.startswith(b"7 this call was submitted by the process that this one was forked from")
    assert said.endswith(b" 3")
    executor.shutdown()
    os.close(read)
    os.close(write)
    assert call.result(30) == "slept"


def test_four_processes_work_at_the_same_time(
    start_worker: StartWorker, private_redis: RedisServer, tmp_path: Path
) -> None:
    start_worker("calls", url=private_redis.url, pool="prefork", concurrency=4, config=CONFIG)
    with Runner(private_redis.url) as runner:
        for folder in (tmp_path / "first", tmp_path / "second"):
            folder.mkdir()
            met = runner.map(called.meet, range(4), str(folder), 4)  # each waits for the other three
            assert len(set(met)) == 4


def test_a_quick_call_does_not_wait_behind_a_slow_one(runner: Runner, tmp_path: Path) -> None:
    assert list(runner.map(called.sometimes, [""] * 200, "")) == [""] * 200, "now it is known to be quick"
    begun, release = tmp_path / "begun", tmp_path / "release"
    calls = [runner.submit(called.sometimes, str(begun) if number == 5 else "", str(release)) for number in range(50)]
    quick = [call.result(30) for number, call in enumerate(calls) if number != 5]
    assert quick == [""] * 49, "the other process has all of them"
    assert not calls[5].done()
    release.touch()
    assert calls[5].result(30) == str(begun)
