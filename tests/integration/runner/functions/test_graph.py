"""Calls as arguments of calls: order, failures, references that the worker resolves, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import NodeFailed, Runner
from celerypipe.redis.connection import Client, connect
from celerypipe.redis.signing import VARIABLE
from celerypipe.runner.functions.outcome import MOST_AGAIN
from celerypipe.runner.functions.session import Session
from tests.nodes import called
from tests.nodes.called import CONFIG
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.extent import at_length


def session_of(runner: Runner) -> Session:
    assert runner._session is not None
    return runner._session


def test_calls_are_arguments_at_any_depth(either: Runner) -> None:
    one, two = either.submit(called.add, 0, 1), either.submit(called.add, 1, 1)
    assert either.submit(called.add, one, two).result(30) == 3
    assert either.submit(called.add, one, other=two).result(30) == 3
    assert either.submit(called.total, [one, 5, two, one]).result(30) == 9
    assert either.submit(called.total, {"a": one, "b": two}).result(30) == 3
    nested = either.submit(called.described, ([(one,), {"x": [two, None]}], 7), y=one).result(30)
    assert nested == called.described(([(1,), {"x": [2, None]}], 7), y=1)


def test_a_call_that_is_done_is_an_argument_too(either: Runner) -> None:
    nothing, array = either.submit(called.nothing), either.submit(called.large, 2)
    assert nothing.result(30) is None
    assert array.result(30)[0] == 2
    said = either.submit(called.described, nothing, either.submit(called.first_and_length, array)).result(30)
    assert said == called.described(None, (2.0, 300_000)).replace("2.0", repr(np.float64(2)))


def test_a_result_is_given_as_it_came_whatever_its_user_did_to_it(runner: Runner) -> None:
    call = runner.submit(called.same, [1, 2])
    call.result(30).append(3)
    assert runner.submit(called.total, call).result(30) == 3


def test_a_diamond(either: Runner) -> None:
    top = either.submit(called.same, 1)
    for _ in range(10):
        left, right = either.submit(called.add, top, 1), either.submit(called.add, top, 2)
        top = either.submit(called.add, left, right)
    value = 1
    for _ in range(10):
        value = (value + 1) + (value + 2)
    assert top.result(30) == value


def test_a_call_that_is_an_argument_more_than_once_is_waited_for_once(either: Runner, tmp_path: Path) -> None:
    marks, release = tmp_path / "marks", tmp_path / "release"
    slow = either.submit(called.gate, str(tmp_path / "begun"), str(release), 4)
    calls = [either.submit(called.noted, str(marks), [number, slow, slow, {"again": slow}]) for number in range(5)]
    release.touch()
    assert [call.result(30) for call in calls] == [[number, 4, 4, {"again": 4}] for number in range(5)]
    assert either.submit(called.noted, str(marks), "last").result(30) == "last"
    assert len(marks.read_text().splitlines()) == 6, "each of them ran once"


def test_a_long_row_and_a_wide_fan_do_not_deadlock_a_full_window(runner: Runner) -> None:
    last = runner.submit(called.same, 0)
    for _ in range(600):
        last = runner.submit(called.add, last, 1)
    wide = [runner.submit(called.add, last, number) for number in range(600)]
    assert runner.submit(called.total, wide).result(50) == 600 * 600 + sum(range(600))


def test_a_failed_input_fails_what_waits_for_it_without_starting_it(either: Runner, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    bad = either.submit(called.refuse, 3)
    good = either.submit(called.same, 1)
    first = either.submit(called.noted, str(marks), [good, bad])
    second = either.submit(called.noted, str(marks), first)
    with pytest.raises(NodeFailed, match=r"noted: not started, for an input of it failed: .*not to my taste") as caught:
        second.result(30)
    assert caught.value.__cause__ is first.exception()
    assert caught.value.__cause__.__cause__ is bad.exception()
    late = either.submit(called.noted, str(marks), bad)
    assert late.exception(30).__cause__ is bad.exception()
    assert {call.state for call in (first, second, late)} == {"failed"}
    assert either.submit(called.same, 5).result(30) == 5
    assert not marks.exists()


def test_a_cancelled_input_too(runner: Runner, tmp_path: Path) -> None:
    release = tmp_path / "release"
    call = runner.submit(called.gate, str(tmp_path / "begun"), str(release))
    row = [call]
    for _ in range(3000):  # no recursion, however long
        row.append(runner.submit(called.same, row[-1]))
    call.cancel()
    error = row[-1].exception(30)
    assert isinstance(error, NodeFailed)
    assert isinstance(row[1].exception(30).__cause__, CancelledError)
    release.touch()


#: A key to sign with.
KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("shared", "keys"),
    [(True, ""), (False, KEY), pytest.param(True, KEY, marks=at_length), pytest.param(False, "", marks=at_length)],
)
def test_large_results_go_to_other_calls_by_reference(
    start_worker: StartWorker, private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, shared: bool, keys: str
) -> None:
    monkeypatch.setenv(VARIABLE, keys)
    start_worker("calls", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    with Runner(private_redis.url, shared_memory=shared) as runner:
        one, two = runner.submit(called.large, 1), runner.submit(called.large, 2)
        words = runner.submit(called.many_words, 50_000)
        added = runner.submit(called.add, one, two)
        ends = [runner.submit(called.first_and_length, each) for each in (one, added, words, [one, two])]
        assert [end.result(30)[1] for end in ends] == [300_000, 300_000, 50_000, 2]
        assert ends[1].result(30)[0] == 3.0
        warps = session_of(runner)._warps.values()
        assert sum(warp.tally.bytes for warp in warps) < 100_000, "none of it came here"
        assert words.result(30) == called.many_words(50_000)
        assert (added.result(30) == 3.0).all()


def test_an_input_that_somebody_altered_is_made_again(
    start_worker: StartWorker, private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    start_worker("calls", url=private_redis.url, pool="solo", concurrency=1, config=CONFIG)
    marks = tmp_path / "marks"
    with Runner(private_redis.url, shared_memory=False) as runner, connect(private_redis.url) as client:
        large = runner.submit(called.large_noted, str(marks), 3)
        assert large.exception(30) is None
        (key,) = client.scan_iter("celerypipe:blob:*")
        content: Any = client.get(key)
        client.set(key, content[:-8] + b"12345678", keepttl=True)
        assert (runner.submit(called.add, large, 1).result(30) == 4).all()
        assert (large.result(30) == 3).all()
        assert marks.read_text() == "3\n3\n"


def lose(runner: Runner, client: Client) -> int:
    """Remove all that lies apart."""
    run = session_of(runner).course.run_id
    return sum(client.delete(key) for key in client.scan_iter(f"celerypipe:blob:{run}:*"))


@pytest.fixture
def distant(shared_worker: StartWorker, redis_url: str) -> Iterator[Runner]:
    """A runner that does not share memory with its workers."""
    shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    with Runner(redis_url, shared_memory=False) as runner:
        yield runner


def test_a_lost_result_is_made_again_for_who_asks(distant: Runner, redis_client: Client, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    call = distant.submit(called.large_noted, str(marks), 3)
    added = distant.submit(called.add, call, call)
    assert added.exception(30) is None
    assert lose(distant, redis_client) == 2
    assert (added.result(30) == 6).all()
    assert marks.read_text() == "3\n3\n"
    assert (call.result(30) == 3).all()


def test_a_lost_input_is_made_again_for_who_needs_it(distant: Runner, redis_client: Client, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    call = distant.submit(called.large_noted, str(marks), 3)
    added = distant.submit(called.add, call, call)
    assert added.exception(30) is None
    lose(distant, redis_client)
    end = distant.submit(called.first_and_length, added)
    assert end.result(30) == (6.0, 300_000)
    assert marks.read_text() == "3\n3\n"


def test_what_cannot_be_made_again_says_so(distant: Runner, redis_client: Client, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    call = distant.submit(called.large_noted, str(marks), 3)
    assert call.exception(30) is None
    lose(distant, redis_client)
    marks.unlink()
    marks.mkdir()  # now it fails
    end = distant.submit(called.first_and_length, call)
    with pytest.raises(NodeFailed, match=r"large_noted: its result was lost, and running it again failed: .*marks"):
        end.result(30)
    with pytest.raises(NodeFailed, match="was lost"):
        call.result(30)


def test_a_row_of_large_results_keeps_only_the_last_one(distant: Runner, redis_client: Client) -> None:
    call: Any = distant.submit(called.large, 0)
    for _ in range(3 * MOST_AGAIN):
        call = distant.submit(called.add, call, 1)
    assert call.result(50)[0] == 3 * MOST_AGAIN
    run = session_of(distant).course.run_id
    eventually(
        lambda: len(list(redis_client.scan_iter(f"celerypipe:blob:{run}:*"))) <= 1, "nothing but the last one is kept"
    )
