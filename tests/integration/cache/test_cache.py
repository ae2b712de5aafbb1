"""What the result cache finds, and what it gives back: against a real Redis, as a run would ask it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from celerypipe import codec
from celerypipe.cache.entry import Failure, digest
from celerypipe.cache.node import CacheUse, NodeCache
from celerypipe.cache.question import Claim, Found
from celerypipe.definition.cache import CacheDefinition
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import ConfigError, NodeFailed, NodeTimeout, NoWorker, WorkerLost
from celerypipe.message.message import Message
from celerypipe.message.payload import Batch, Image, Object
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from tests.runs.asking import PARENT, Asking, asked, asking
from tests.servers import RedisServer, eventually

FAILURE = Failure("failed", "ValueError", "node: ValueError: no", "Traceback …\nValueError: no")


def kept_before(ask: Asking, what: Any, before: str) -> None:
    """Leave in the cache what the story begins with."""
    if before == "nothing":
        return
    claim = ask.start(what, CacheDefinition(failures=True)).claim()
    if before == "a result":
        claim.keep([Message("kept")], PARENT, seconds=2.0)
    else:
        claim.failed(FAILURE)
    eventually(lambda: ask.cache.stats.kept == 1, "the entry")


@pytest.mark.parametrize(
    ("before", "failures", "read_only", "how", "outcome"),
    list(
        product(
            ("nothing", "a result", "a failure"),
            (False, True),
            (False, True),
            ("", "refresh", "rerun_failing"),
            ("result", "failure"),
        )
    ),
)
def test_what_is_looked_at_and_what_is_kept(
    redis_url: str, redis_client: Client, before: str, failures: bool, read_only: bool, how: str, outcome: str
) -> None:
    """The whole table: what is there, what the node's cache says, what the user says, and what comes of it."""
    policy = CacheDefinition(failures=failures, read_only=read_only)
    what = asked((before, failures, read_only, how, outcome, os.urandom(4).hex()))
    with asking(redis_url) as ask:
        kept_before(ask, what, before)

    found = how != "refresh" and (before == "a result" or (before == "a failure" and failures and not how))
    with asking(redis_url) as ask:
        answer = ask.ask(what, policy, **({how: True} if how else {}))
        assert isinstance(answer, Found) is found
        if isinstance(answer, Found):
            assert answer.failure == (FAILURE if before == "a failure" else None)
        elif outcome == "result":
            answer.keep([Message("new")], PARENT, seconds=1.0)
        else:
            answer.failed(FAILURE)

    written = not found and not read_only and (outcome == "result" or failures)
    new = "new" if outcome == "result" else "a failure"
    after = new if written else before
    assert redis_client.exists(keys.USUAL.cache_claim(what.fingerprint)) == 0
    with asking(redis_url) as ask:
        now = ask.ask(what, CacheDefinition(failures=True, read_only=True))
    if after == "nothing":
        assert isinstance(now, Claim)
    else:
        assert isinstance(now, Found)
        assert now.failure == (FAILURE if after == "a failure" else None)
        assert [out.payload for out in now.outputs(PARENT)] == (
            [] if after == "a failure" else ["kept" if after == "a result" else "new"]
        )


@pytest.mark.parametrize(
    "error",
    [
        NodeTimeout("node: 5 s exceeded", node="node"),
        WorkerLost("node: its process died", node="node"),
        NoWorker("node: no worker", node="node"),
        ConfigError("node: a setting is wrong"),
        # Ours, of the same class as what a node raises: its payload was lost or altered on its way.
        NodeFailed("node: its input was lost, and before did not make it again", node="node"),
        NodeFailed("node: its payload was altered on its way 3 times", node="node"),
    ],
)
def test_what_is_nobodys_fault_is_no_answer(redis_url: str, error: Exception) -> None:
    policy, what = CacheDefinition(failures=True), asked(f"not kept: {error}")
    node = NodeDefinition(name="node", type="proc", mark="node", cache={"failures": True})
    cache = NodeCache(node, dict, dict, use=CacheUse(), say=str)
    with asking(redis_url) as ask:
        cache.failed(ask.start(what, policy).claim(), what, error)
        ask.start(what, policy).claim().drop()


@pytest.mark.parametrize(
    "payload",
    [
        None,
        0.1 + 0.2,
        (1, 2, 3),
        [1, 2, 3],
        {"boxes": [(1, 2)], "n": None},
        Object(text="hello"),
        Image(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), 2, 2),
        np.asfortranarray(np.ones((2, 3, 4), np.float32)),
        np.float32(1.5),
        b"x" * 70_000,
        ["y" * 100_000],
        np.arange(100_000.0),
        np.zeros((3, 0)),
        Batch((Message(1), Message(2))),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_a_payload_comes_back_exactly(redis_url: str, payload: object) -> None:
    what = asked(("exact", digest(_bytes(payload))))
    with asking(redis_url) as ask:
        assert ask.compute(what, payload)
    with asking(redis_url) as ask:
        again = ask.payload(what)
    assert type(again) is type(payload)
    assert _bytes(again) == _bytes(payload)


def _bytes(payload: object) -> bytes:
    return codec.encode_joined([Message(payload, id="", created_at=0)])


def test_notes_that_are_the_inputs_are_taken_from_the_input_that_asks(redis_url: str) -> None:
    what, parent = asked("notes"), Message("in", {"path": "a.png", "n": 1}, version=4, timers={"read": 0.1})
    with asking(redis_url) as ask:
        outputs = [
            parent.with_payload("all"),
            parent.with_payload("more").with_meta(boxes=[1], n=2),
            Message("none", {"own": 1.0}),
            Message("some", {"path": "a.png"}, version=9),
        ]
        ask.start(what).claim().keep(outputs, parent, seconds=0.25)
    other = Message("in", {"path": "b.png", "n": 1, "new": True}, version=5, timers={"read": 0.2})
    with asking(redis_url) as ask:
        found = ask.start(what).found()
        everything, more, none, some = found.outputs(other)
        assert found.seconds == 0.25
    assert (everything.meta, everything.version, everything.timers) == (other.meta, 5, other.timers)
    assert more.meta == {"path": "b.png", "n": 2, "new": True, "boxes": [1]}
    assert list(more.meta) == ["path", "n", "new", "boxes"]
    assert (none.meta, none.version, none.timers) == ({"own": 1.0}, -1, {})
    assert (some.meta, some.version) == ({"path": "b.png"}, 9)
    assert len({each.id for each in (everything, more, none, some, *outputs)}) == 8
    assert everything.origin == everything.creator == ""


def test_no_output_is_an_answer_too(redis_url: str) -> None:
    with asking(redis_url) as ask:
        ask.start(asked("swallowed")).claim().keep([], PARENT, seconds=0.1)
    with asking(redis_url) as ask:
        assert ask.start(asked("swallowed")).found().outputs(PARENT) == []


def test_what_changes_after_it_was_kept_is_kept_as_it_was(redis_url: str) -> None:
    array = np.zeros(100_000)
    with asking(redis_url) as ask:
        claim = ask.start(asked("changes")).claim()
        claim.keep([Message(array)], PARENT, seconds=0.1)
        array[:] = 1
    with asking(redis_url) as ask:
        assert not ask.payload(asked("changes")).any()


def test_a_ttl_counts_for_who_keeps_and_for_who_asks(redis_url: str, redis_client: Client) -> None:
    with asking(redis_url) as ask:
        assert ask.compute(asked("short"), 1, CacheDefinition(ttl=0.3))
        assert ask.compute(asked("long"), 1, CacheDefinition(ttl=3600.0))
        assert ask.compute(asked("forever"), 1)
        eventually(lambda: ask.cache.stats.kept == 3, "three entries")
        eventually(lambda: isinstance(_given_back(ask, "short"), Claim), "the end of the short one")
        assert isinstance(ask.ask(asked("forever"), CacheDefinition(ttl=0.01)), Claim)
        assert ask.payload(asked("long"), CacheDefinition(ttl=3600.0)) == 1
    assert 0 < redis_client.pttl(keys.USUAL.cache_entry(asked("long").fingerprint)) <= 3_600_000
    assert 3_600_000 < redis_client.pttl(keys.USUAL.cache_entry(asked("forever").fingerprint)) <= keys.CACHE_TTL


def _given_back(ask: Asking, what: str) -> Found | Claim:
    answer = ask.ask(asked(what))
    if isinstance(answer, Claim):
        answer.drop()
    return answer


def test_equal_large_results_are_stored_once(redis_url: str, redis_client: Client) -> None:
    array = np.full(200_000, 7.25)
    with asking(redis_url) as ask:
        for number in range(3):
            assert ask.compute(asked(("equal", number)), array)
    with asking(redis_url) as ask:
        for number in range(3):
            assert (ask.payload(asked(("equal", number))) == array).all()
        assert (ask.cache.stats.hits, ask.cache.stats.seconds) == (3, 1.5)
        assert ask.cache.stats.bytes > 3 * array.nbytes
    blobs = [
        name
        for name in redis_client.scan_iter(f"{keys.USUAL.cache}blob:*")
        if redis_client.strlen(name) == array.nbytes
    ]
    assert len(blobs) == 1


def test_a_hit_is_one_round_trip_and_a_miss_two(private_redis: RedisServer) -> None:
    with asking(private_redis.url) as ask:
        assert ask.compute(asked("trips"), 1)
        eventually(lambda: ask.cache.stats.kept == 1, "the entry")
        trips: list[int] = []
        run = ask.cache._desk.round.run

        def counted(*arguments: Any) -> None:
            trips.append(1)
            run(*arguments)

        ask.cache._desk.round.run = counted  # type: ignore[method-assign]  # counts, and does what it did
        ask.cache._every += 60
        assert ask.payload(asked("trips")) == 1
        assert len(trips) == 1
        ask.start(asked("no trips")).claim()
        assert len(trips) == 3


def test_several_at_once_what_is_only_looked_for_is_no_claim(redis_url: str) -> None:
    with asking(redis_url) as ask:
        for number in (1, 3):
            assert ask.compute(asked(("several", number)), number)
        eventually(lambda: ask.cache.stats.kept == 2, "two entries")
        ahead = [ask.look(asked(("several", number))) for number in range(1, 5)]
        first = ask.start(asked(("several", 0)), node="n", message="0").answer()
        others = [each.answer() for each in ahead]
        assert isinstance(first, Claim)
        assert [isinstance(each, Found) for each in others] == [True, False, True, False]
        assert others[1] is others[3] is None
        first.drop()
        assert isinstance(ask.ask(asked(("several", 1)), refresh=True), Claim)


def in_child(work: Callable[[], None]) -> None:
    """Fork, and do it there."""
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_forked_child_has_a_cache_of_its_own(redis_url: str) -> None:
    with asking(redis_url) as ask:
        claim = ask.start(asked("held by the parent")).claim()
        assert ask.compute(asked("before the fork"), 1)

        def child() -> None:
            claim.keep([Message("from the child")], PARENT, seconds=0.1)  # it is not the child's
            assert ask.payload(asked("before the fork")) == 1
            assert ask.compute(asked("in the child"), 2)
            ask.cache.close()

        eventually(lambda: ask.cache.stats.kept == 1, "the entry")
        in_child(child)
        assert ask.payload(asked("in the child")) == 2
        waiting = ask.start(asked("held by the parent"))
        claim.keep([Message("from the parent")], PARENT, seconds=0.1)
        assert waiting.found().outputs(PARENT)[0].payload == "from the parent"


def test_what_cannot_travel_is_not_kept_and_said_once(redis_url: str) -> None:
    with asking(redis_url) as ask:
        for number in range(3):
            assert ask.compute(asked(("lambda", number)), [print])
            assert isinstance(_given_back(ask, "lambda"), Claim)
        assert len(ask.said) == 1
        assert "payload[0]" in ask.said[0]


def test_after_the_end_all_are_misses(redis_url: str) -> None:
    with asking(redis_url) as ask:
        assert ask.compute(asked("the end"), 1)
        first = ask.start(asked("held at the end")).claim()
        waiting = ask.start(asked("held at the end"))
        ask.cache.close()
        assert isinstance(waiting.answer(), Claim)
        assert isinstance(ask.ask(asked("the end")), Claim)
        first.drop()
