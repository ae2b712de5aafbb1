"""A watcher hears of all that happens in a run, and what it raises ends nothing."""

from __future__ import annotations

import inspect
import threading
from typing import Any, get_args

import pytest

from celerypipe import ConfigError, Message, NodeFailed, Runner, Watcher
from celerypipe.runner.stations.course import WatcherMethod
from tests.nodes import called
from tests.runs.pipelines import warped
from tests.runs.reading import results

PICKY = {"mark": "tests.nodes.remote.Picky", "queue": "here", "configuration": {"bad": [2], "times": 1}}


class Noting(Watcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.runs: set[str] = set()
        self.lock = threading.Lock()

    def note(self, run: str, *facts: Any) -> None:
        with self.lock:
            self.runs.add(run)
            self.notes.append(facts)

    def run_began(self, run: str, pipeline: str) -> None:
        self.note(run, "began", pipeline)

    def message_done(self, run: str, node: str, message: Message, seconds: float) -> None:
        assert seconds >= 0
        self.note(run, "done", node, message.sequence)

    def attempt_failed(
        self, run: str, node: str, message: Message | None, error: BaseException, again: float | None
    ) -> None:
        assert isinstance(error, NodeFailed)
        assert message is not None
        self.note(run, "failed", node, message.sequence, again is not None)

    def run_ended(self, run: str, status: str) -> None:
        self.note(run, "ended", status)


class Raising(Watcher):
    """Raises whatever it is told."""

    def __getattribute__(self, name: str) -> Any:
        if name in get_args(WatcherMethod):
            raise RuntimeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("local", [False, True])
def test_it_hears_of_each_message_and_one_that_raises_harms_nobody(
    local: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """In the runner's process; that a node runs on a worker makes no difference in who tells it."""
    noting = Noting()
    pipeline = warped(retries=1, limits={"backoff": 0.01}, **PICKY)
    if not local:
        node = pipeline.nodes[0].model_copy(update={"warped": False})
        pipeline = pipeline.model_copy(update={"nodes": [node]})
    assert results(Runner(local=True, watchers=[Raising(), noting]), pipeline, range(3)) == [0, 1, 2]
    assert noting.notes[0] == ("began", "test")
    assert noting.notes[-1] == ("ended", "done")
    assert sorted(noting.notes[1:-1]) == [
        ("done", "there", 0),
        ("done", "there", 1),
        ("done", "there", 2),
        ("failed", "there", 2, True),
    ]
    assert len(noting.runs) == 1
    assert "message_done() of a watcher failed" in caplog.text


def test_it_hears_that_a_run_failed() -> None:
    noting = Noting()
    with pytest.raises(NodeFailed):
        results(Runner(local=True, watchers=[noting]), warped(**PICKY), [2])
    assert noting.notes == [("began", "test"), ("failed", "there", 0, False), ("ended", "failed")]


def test_it_hears_of_calls() -> None:
    noting = Noting()
    with Runner(local=True, watchers=[noting]) as runner:
        assert runner.submit(called.same, 1).result(10) == 1
    assert noting.notes == [("began", "functions"), ("done", "same", -1), ("ended", "done")]


def test_what_is_told_are_the_methods_there_are() -> None:
    assert {name for name, _ in inspect.getmembers(Watcher, inspect.isfunction)} == set(get_args(WatcherMethod))


def test_a_class_is_no_watcher() -> None:
    with pytest.raises(
        ConfigError, match=r"watchers\[0\] is <class .*; give an object of a subclass of celerypipe.Watcher"
    ):
        Runner(watchers=[Noting])  # type: ignore[list-item]
