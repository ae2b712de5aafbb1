"""What a run remembers of its workers: thousands of them may come and go."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sized
from typing import Any

import msgspec
import pytest

from celerypipe import codec
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.mailbox.bell import Declined
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.presence import Presence
from celerypipe.redis.connection import Client
from celerypipe.runner.carrier import doubts, roster
from celerypipe.runner.carrier.doubts import Doubts
from celerypipe.runner.carrier.roster import Roster
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.downstream import Downstream
from celerypipe.runner.warp.warp import Warp

MARK = "tests.nodes.remote.Echo"


def workers() -> Iterator[Presence]:
    """Worker after worker, each with a queue of its own too: every second one takes signed messages only."""
    for number in itertools.count(1):
        yield {
            "id": f"box.{number}.{number:08x}",
            "host": "box",
            "pid": number,
            "pool": "threads",
            "slots": 1,
            "queues": ["gpu", f"box{number}"],
            "marks": {MARK: {"mark": MARK, "arguments": []}},
            "versions": {"codec": codec.CODEC_VERSION},
            "interrupts": False,
            "keys": ["theirs"] if number % 2 else [],
            "protocol": [1, 1],
        }


def remembered(one: Any) -> int:
    """How many things it holds in all of its collections."""
    collections = [each for each in vars(one).values() if isinstance(each, Sized) and not isinstance(each, str)]
    return sum(map(len, collections)) + sum(len(each) for each in vars(one).get("_findings", {}).values())


def test_a_run_forgets_the_workers_that_are_gone(redis_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    course = Course("run", folder=None, say=said.append)
    node = NodeDefinition(
        name="there", type="proc", mark=MARK, warped=True, timeout=5, warp_configuration={"queue": "gpu"}
    )
    ours: Any = Roster(course)
    warps = [Warp(course, node, ours, Downstream())]
    for seconds in ("LOOK", "IDLE_LOOK", "BELIEVED", "FORGOTTEN"):
        monkeypatch.setattr(roster, seconds, 0.0)
    monkeypatch.setattr(ours._live, "told", lambda client, answer: there)
    come, sizes = workers(), []
    for _ in range(30):
        there = list(itertools.islice(come, 4))
        for _ in range(2):
            ours.look(redis_client, warps)
            assert ours.share_memory("gpu") is False
        sizes.append(remembered(ours))
    assert sizes[-1] == sizes[1] < 40, sizes
    assert sum("takes signed messages only" in text for text in said) == 60, "of each, once"
    assert sum("cannot stop what exceeds the timeout" in text for text in said) == 60


def test_it_remembers_of_so_many_that_they_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubts, "REMEMBERED", 10)
    said: list[str] = []
    ours = Doubts(Course("run", folder=None, say=said.append), None, ["there"])
    for number in range(100):
        for _ in range(4):
            ours.declined(msgspec.json.encode(Declined("there", f"box.{number}.{number:08x}", "it is too old")))
    assert len(said) == 100
    assert list(ours.declining) == [Process.read(f"box.{number}.{number:08x}").life for number in range(90, 100)]
    assert remembered(ours) <= 22
