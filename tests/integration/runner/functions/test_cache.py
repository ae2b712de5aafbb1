"""Functions whose results are remembered: a call that was made before is settled without anybody running it."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

import numpy as np
import pytest

from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import NodeDefinition
from tests.nodes import called
from tests.nodes.called import CONFIG
from tests.servers import StartWorker, eventually


@pytest.fixture(params=["there", "here"])
def url(request: pytest.FixtureRequest, shared_worker: StartWorker, redis_url: str) -> str:
    """The address of a Redis, with a worker or, as the test's ``local``, without; marks are new each time."""
    if request.param == "there":
        shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    return redis_url


@pytest.fixture
def local(request: pytest.FixtureRequest) -> bool:
    """Do calls run here?"""
    return bool(request.node.callspec.params["url"] == "here")


def times(path: Path) -> int:
    """How often it ran."""
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_call_that_was_made_before_is_cached(url: str, local: bool, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    for round_ in range(2):
        with Runner(url, local=local) as runner:
            calls = [
                runner.submit(called.remembered, str(marks), (1, "x")),
                runner.submit(called.remembered, str(marks), value=(1, "x"), scale=2),
                runner.submit(called.remembered, str(marks), np.ones(20_000)),
            ]
            assert calls[0].result(30) == (1, "x", 1, "x")
            assert calls[1].result(30) == (1, "x", 1, "x")
            assert (calls[2].result(30) == 2).all()
            assert calls[2].result().dtype == np.float64
            assert times(marks) == 2, "a default that is given is the same"
            states = sorted(call.state for call in calls)
            assert states == (["cached"] * 3 if round_ else ["cached", "done", "done"]), (
                "one computes, one waits for it"
            )
    with Runner(url, local=local, cache=False) as runner:
        assert runner.submit(called.remembered, str(marks), (1, "x")).result(30) == (1, "x", 1, "x")
    assert times(marks) == 3


def test_inputs_count_by_what_they_are(url: str, local: bool, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    for round_ in range(2):
        with Runner(url, local=local) as runner:
            large = runner.submit(called.large, 3)
            twice = runner.submit(called.remembered, str(marks), large)
            more = runner.submit(called.add, twice, 1)
            small = runner.submit(called.remembered, str(marks), runner.submit(called.same, 5))
            assert (more.result(30) == 7).all()
            assert small.result(30) == 10
            assert [twice.state, small.state] == (["cached"] * 2 if round_ else ["done"] * 2)
    assert times(marks) == 2


def test_inputs_that_have_to_come_here_come_one_after_another(url: str, local: bool, tmp_path: Path) -> None:
    with Runner(url, local=local) as runner:
        larges = [runner.submit(called.large, number, 20_000) for number in range(40)]
        calls = [runner.submit(called.remembered, str(tmp_path / "marks"), large) for large in larges]
        most = 0
        while not all(call.done() for call in calls):
            names = [thread.name for thread in threading.enumerate()]
            most = max(most, names.count("celerypipe-inputs"))
        assert [call.result(30)[0] for call in calls] == [2 * number for number in range(40)]
        assert most <= 1, "no thread for each"


def test_a_failure_is_not_kept_and_a_call_is_no_message_of_a_pipeline(url: str, local: bool, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with Runner(url, local=local) as runner:
        for _ in range(2):
            assert runner.submit(called.remembered, str(marks), "bad").exception(30) is not None
        assert times(marks) == 2
        assert runner.submit(called.remembered, str(marks), 4).result(30) == 8
        node = NodeDefinition(name="n", type="proc", mark=called.remembered, warped=not local)
        pipeline = Pipeline(name="p", nodes=[node.model_copy(update={"configuration": {"value": 4}})], links=[])
        (out,) = Runner(url, local=local).stream(pipeline, [Message(str(marks))])
        assert out.payload == 8
        assert times(marks) == 4, "what a node gets as its payload is something else"


def test_a_cancelled_call_leaves_the_claim_to_others(url: str, local: bool, tmp_path: Path) -> None:
    if local:
        pytest.skip("a thread cannot be interrupted")
    marks = tmp_path / "marks"
    with Runner(url) as runner:
        slow = runner.submit(called.remembered, str(marks), "slow")
        again = runner.submit(called.remembered, str(marks), "slow")
        eventually(lambda: times(marks) == 1, "the first one at work")
        assert slow.cancel()
        eventually(lambda: times(marks) == 2, "the second one computes it")
        assert again.cancel()
        assert runner.submit(called.remembered, str(marks), 1).result(30) == 2


@pytest.mark.parametrize("what", ["array", "number", "tuple", "none"])
def test_a_result_is_the_same_directly_here_there_and_remembered(
    shared_worker: StartWorker, redis_url: str, what: str
) -> None:
    shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    direct = called.exact(what, "")
    for local in (True, False):
        salt = secrets.token_hex(8)
        for state in ("done", "cached"):
            with Runner(redis_url, local=local) as runner:
                call = runner.submit(called.exact, what, salt)
                found = call.result(30)
                assert (call.state, type(found)) == (state, type(direct))
                if what == "array":
                    assert (found.dtype, found.shape) == (direct.dtype, direct.shape)
                    assert (found == direct).all()
                else:
                    assert found == direct


def test_a_second_pass_runs_what_failed_and_nothing_else(url: str, local: bool, tmp_path: Path) -> None:
    bad = [number for number in range(40) if number % 4 == 3]
    for function, again in ((called.picky, bad), (called.picky_for_good, [])):
        marks = tmp_path / function.__name__
        passes = []
        for _ in range(2):
            with Runner(url, local=local) as runner:
                calls = [runner.submit(function, str(marks), number) for number in range(40)]
                errors = [call.exception(30) for call in calls]
                assert [number for number, error in enumerate(errors) if error is not None] == bad
                assert all("is not to my taste" in error.remote_traceback for error in errors if error is not None)
            passes.append(sorted(map(int, marks.read_text().split())))
        assert passes == [list(range(40)), sorted([*range(40), *again])]
    with Runner(url, local=local, rerun_failing=True) as runner:
        calls = [runner.submit(called.picky_for_good, str(marks), number) for number in range(40)]
        assert sum(call.exception(30) is not None for call in calls) == 10
    assert len(marks.read_text().split()) == 50, "those that failed are run again when somebody wants that"
