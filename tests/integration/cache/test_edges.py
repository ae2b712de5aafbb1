"""The result cache at its edges: runs that wait for a worker, defaults that differ, notes that a node writes over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe import Message, NodeFailed, RunCancelled, Runner
from celerypipe.cache.cache import EVERY
from celerypipe.cache.index import entries
from celerypipe.cache.question import Question
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.mailbox.schemas import remember
from celerypipe.redis.connection import Client
from tests.nodes import remembered
from tests.nodes.remembered import CONFIG
from tests.runs.asking import PARENT, PLAIN, Asking, Waiting, asked, asking
from tests.runs.cached import QUEUE, UNSEEN, computed, content, outputs, payloads, pipeline
from tests.runs.reading import Reading
from tests.runs.traces import report_of
from tests.servers import StartWorker, eventually
from tests.servers.worker import KEY


def is_claimed(client: Client, begin: bytes = b"") -> bool:
    """Is there a claim that begins so?"""
    claims = [client.get(name) for name in client.scan_iter("celerypipe:cache:claim:*")]
    return any(isinstance(each, bytes) and each.startswith(begin) for each in claims)


def unserved(ask: Asking, what: object) -> Waiting:
    """Ask, with nobody there who would compute it."""
    waiting = Waiting()
    ask.cache.post(Question(asked(what), PLAIN, waiting.told, served=lambda: False))  # type: ignore[arg-type]
    return waiting


@pytest.mark.parametrize("elsewhere", [True, False])
def test_who_has_a_worker_waits_for_nobody_who_has_none(redis_url: str, elsewhere: bool) -> None:
    what = ("no worker", elsewhere)
    with asking(redis_url) as idle, asking(redis_url) as other:
        first = unserved(idle, what).claim()
        able = other if elsewhere else idle
        second = able.start(asked(what)).claim()
        third = able.start(asked(what))
        again = unserved(other, what)
        second.keep([Message("computed")], PARENT, seconds=1.0)
        assert third.found().outputs(PARENT)[0].payload == "computed"
        assert again.found().outputs(PARENT)[0].payload == "computed"
        eventually(lambda: able.cache.stats.kept == 1, "the entry")
        first.keep([Message("late")], PARENT, seconds=1.0)
        eventually(lambda: other.payload(asked(what)) == "late", "the late one")


def test_the_claim_of_another_is_looked_at_more_often_than_claims_are_renewed(redis_url: str) -> None:
    with asking(redis_url) as ask, asking(redis_url) as other:
        claim = ask.start(asked("looked at")).claim()
        waiting = other.start(asked("looked at"))
        flight = eventually(lambda: next(iter(other.cache._desk._polling.values()), None), "a look")
        began = other.cache._every
        eventually(lambda: flight.tries >= 12, "twelve looks")
        assert other.cache._every - began < 6 * EVERY
        claim.keep([Message(1)], PARENT, seconds=1.0)
        waiting.found()


@pytest.mark.parametrize("warped", [True, False])
def test_a_run_that_waits_for_a_worker_holds_up_no_run_that_needs_none(
    redis_url: str, redis_client: Client, diary: Path, warped: bool
) -> None:
    limits = {"queue": "rnowhere"}
    remember(redis_client, Catalogue().find("tests.nodes.remembered.Declared").schema(), None)  # by a worker of before
    waiting = Runner(redis_url)
    pipe = pipeline("tests.nodes.remembered.Declared", diary, warped=True, limits=limits)
    reading = Reading(waiting.stream(pipe, map(Message, range(4))))
    eventually(lambda: is_claimed(redis_client, b"?"), "the claim of a run without a worker")
    here = pipeline("tests.nodes.remembered.Declared", diary, warped=warped, **({"limits": limits} if warped else {}))
    assert payloads(Runner(redis_url, local=True), here, range(4)) == [0, 1, 4, 9]
    waiting.cancel()
    with pytest.raises(RunCancelled):
        reading.payloads()


def test_a_worker_with_another_default_is_not_kept_as_what_was_asked(
    start_worker: StartWorker,
    redis_url: str,
    redis_client: Client,
    diary: Path,
    workplace: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its author changed a default and not the version; without a worker, what one told before counted."""
    name = "unseen_default"
    workplace.module(name, UNSEEN)
    monkeypatch.syspath_prepend(str(workplace.folder))
    remember(redis_client, Catalogue().find(f"{name}.Far").schema(), None)
    there = workplace.folder / "there"
    there.mkdir()
    (there / f"{name}.py").write_text(UNSEEN.replace("times: int = 3", "times: int = 4"))
    pipe = pipeline(f"{name}.Far", diary, warped=True, limits={"queue": "rdefault"})
    reading = Reading(Runner(redis_url).stream(pipe, map(Message, range(3))))
    eventually(lambda: is_claimed(redis_client, b"?"), "a question")
    start_worker("rdefault", pool="solo", concurrency=1, config=f'imports = ["{name}"]\n', cwd=there)
    assert reading.payloads() == [0, 4, 8]
    assert payloads(Runner(redis_url), pipe, [5]) == [20]
    kept = [each.asked.configuration["times"] for each in entries(redis_client, f"{name}.Far")]
    assert kept == ["4"], "of what was asked with another default nothing is kept"


@pytest.mark.parametrize("warped", [True, False])
def test_notes_that_a_node_writes_over_are_its_own(
    shared_worker: StartWorker, redis_url: str, diary: Path, warped: bool
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline(remembered.Scribbler, diary, warped=warped)

    def inputs(path: str) -> list[Message]:
        return [Message(n, {"path": path}) for n in range(1, 4)]

    outputs(Runner(redis_url), pipe, inputs("a"))
    runner = Runner(redis_url)
    found = outputs(runner, pipe, inputs("b"))
    assert report_of(runner)["node"].hits == 3
    assert content(found) == content(outputs(Runner(redis_url, cache=False), pipe, inputs("b")))


@pytest.mark.parametrize("warped", [True, False])
def test_a_note_that_the_first_input_had_already_is_no_reason_to_leave_it_out(
    shared_worker: StartWorker, redis_url: str, diary: Path, warped: bool
) -> None:
    """Who has a note as an input and as an output did not say which of them it is of."""
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    pipe = pipeline(remembered.Square, diary, warped=warped)
    rich, poor = {"path": "a", "squared": True}, {"path": "b"}
    outputs(Runner(redis_url), pipe, [Message(3, rich)])
    found = outputs(Runner(redis_url), pipe, [Message(3, poor), Message(3, rich), Message(3, poor)])
    assert [dict(each.meta) for each in found] == [{**poor, "squared": True}, rich, {**poor, "squared": True}]
    assert len(computed(diary)) == 2, "what was computed for the poorer one does for both"


def test_signed_workers_are_believed_and_what_they_told_is(
    shared_worker: StartWorker, redis_url: str, diary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERYPIPE_KEYS", KEY)
    shared_worker("rsigned", pool="solo", concurrency=1, config=CONFIG, env={"CELERYPIPE_KEYS": KEY})
    pipe = pipeline(remembered.Square, diary, warped=True, limits={"queue": "rsigned"})
    said: list[str] = []
    for _ in range(2):
        runner = Runner(redis_url, on_event=said.append)
        assert payloads(runner, pipe, range(4)) == [0, 1, 4, 9]
    assert (report_of(runner)["node"].hits, len(computed(diary)), said) == (4, 4, [])


@pytest.mark.parametrize("function", [remembered.picky, remembered.grim])
def test_a_second_pass_runs_only_what_failed_and_nothing_if_failures_are_kept(
    shared_worker: StartWorker, redis_url: str, diary: Path, function: Any
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    found = []
    for _ in range(2):
        with Runner(redis_url) as runner:
            calls = [runner.submit(function, number, str(diary)) for number in range(40)]
            found.append(
                [str(call.exception(30)) if number % 4 == 0 else call.result(30) for number, call in enumerate(calls)]
            )
    assert found[0] == found[1]
    assert sum("is one of four" in str(each) for each in found[0]) == 10
    again = [str(number) for number in range(0, 40, 4)] if function is remembered.picky else []
    assert computed(diary)[40:] == again


@pytest.mark.parametrize("what", ["ones", "sum", "tuple", "none"])
def test_a_result_is_the_same_called_here_there_and_out_of_the_cache(
    shared_worker: StartWorker, redis_url: str, diary: Path, what: str
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    directly = remembered.made(what, str(diary))
    found, states = [], []
    for _ in range(2):
        with Runner(redis_url) as runner:
            call = runner.submit(remembered.made, what, str(diary))
            found.append(call.result(30))
            states.append(call.state)
    assert states == ["done", "cached"]
    for each in found:
        assert type(each) is type(directly)
        assert np.array_equal(each, directly)
        assert getattr(each, "dtype", None) == getattr(directly, "dtype", None)


def test_a_failure_that_is_kept_is_an_error_as_the_first_one_was(
    shared_worker: StartWorker, redis_url: str, diary: Path
) -> None:
    shared_worker(QUEUE, pool="solo", concurrency=1, config=CONFIG)
    errors = []
    for _ in range(2):
        with Runner(redis_url) as runner:
            errors.append(runner.submit(remembered.grim, 8, str(diary)).exception(30))
    first, second = errors
    assert isinstance(first, NodeFailed)
    assert isinstance(second, NodeFailed)
    assert (str(first), first.remote_traceback) == (str(second), second.remote_traceback)
    assert str(first.__cause__) == str(second.__cause__)
    assert len(computed(diary)) == 1
