"""The fence around a state, script by script, on a real Redis: what two activations and a runner may do to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from celerypipe import Message
from celerypipe.mailbox.fence import GIVEN_UP, RUNNER, Fence
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.record import Record
from celerypipe.mailbox.wire import FAILURE, RESULT, Answer, Entry, packed_entry
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.query import ask
from celerypipe.redis.script import call, together
from celerypipe.runner.carrier.states import States
from celerypipe.runner.warp.retained import Retained
from celerypipe.worker.activation.alarm import Unarmed
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.fenced import StatefulServing
from celerypipe.worker.activation.keeper import Lease

FIRST, SECOND = "host.1.aa.0", "host.2.bb.0"


@pytest.fixture
def fence(redis_client: Client, request: pytest.FixtureRequest) -> Iterator[Fence]:
    """A state that its runner has just made, a mailbox of four messages and a reply stream."""
    mailbox = Mailbox(request.node.name[:40], "there")
    made = Fence(mailbox)
    made.rewind(redis_client, -1, ("", b"", ()))
    redis_client.xadd(keys.USUAL.reply(mailbox.run), {"n": ""})
    call(
        redis_client,
        mailbox.sending([packed_entry(number, 0, "", b"") for number in range(4)], token="t", wanted=1, ttl=60_000),
    )
    yield made
    redis_client.delete(*redis_client.scan_iter(f"celerypipe:*:{mailbox.run}*"))


def enter(fence: Fence, client: Client, owner: str) -> list[Entry]:
    """Take the bell over and enter; return what this activation has to work on."""
    client.delete(f"{fence.mailbox.bell}0")
    assert call(client, fence.mailbox.taking(0, owner))
    assert fence.enter(client, 0, owner) is not None
    fence.mailbox.receive(client, owner, 10, None)
    return fence.pending(client, owner)


def publish(fence: Fence, client: Client, owner: str, entries: list[Entry], kind: bytes = RESULT) -> Any:
    answers = [Answer(entry, kind, 0.0, 0.0, "", b"result") for entry in entries]
    return together(client, fence.publishing(owner, answers, ends=False))[0]


def save(fence: Fence, client: Client, owner: str, entries: list[Entry]) -> str | None:
    ids = [entry.id for entry in entries]
    return fence.save(client, owner, entries[-1].sequence, ("data", b"state", ()), ids)


def test_only_who_holds_the_bell_enters(fence: Fence, redis_client: Client) -> None:
    assert fence.enter(redis_client, 0, FIRST) is None
    assert [entry.sequence for entry in enter(fence, redis_client, FIRST)] == [0, 1, 2, 3]
    assert fence.enter(redis_client, 0, SECOND) is None
    seen = fence.look(redis_client)
    assert seen is not None
    assert seen.token == FIRST


def test_who_enters_is_told_who_died_and_what_is_published(fence: Fence, redis_client: Client) -> None:
    entries = enter(fence, redis_client, FIRST)
    assert publish(fence, redis_client, FIRST, entries[:3]) == [2, 3]
    assert save(fence, redis_client, FIRST, entries[:2]) == ""
    redis_client.delete(f"{fence.mailbox.bell}0")
    call(redis_client, fence.mailbox.taking(0, SECOND))
    assert fence.enter(redis_client, 0, SECOND) == (FIRST, 1, 2, 2, b"state", "")
    assert [entry.sequence for entry in fence.pending(redis_client, SECOND)] == [2, 3]


def test_who_was_shut_out_can_do_nothing(fence: Fence, redis_client: Client) -> None:
    old = enter(fence, redis_client, FIRST)
    new = enter(fence, redis_client, SECOND)
    assert [entry.id for entry in new] == [entry.id for entry in old]
    # Even with the bell back in hand, as a keeper that woke up late has it.
    redis_client.delete(f"{fence.mailbox.bell}0")
    call(redis_client, fence.mailbox.taking(0, FIRST))
    assert publish(fence, redis_client, FIRST, old) == -1
    assert save(fence, redis_client, FIRST, old) is None
    assert not fence.discard(redis_client, FIRST, [old[0].id])
    assert not fence.say(redis_client, FIRST, "trouble", b"x")
    assert redis_client.xlen(fence.mailbox.stream) == 4
    assert publish(fence, redis_client, SECOND, new) == [2, 4]


def test_a_message_is_withdrawn_or_answered_and_never_both(fence: Fence, redis_client: Client) -> None:
    entries = enter(fence, redis_client, FIRST)
    assert publish(fence, redis_client, FIRST, entries[:2]) == [2, 2]
    assert not fence.withdraw(redis_client, entries[1].id.encode(), 1)
    assert fence.withdraw(redis_client, entries[2].id.encode(), 2)
    # What was made after it was made with a state that must not be.
    assert publish(fence, redis_client, FIRST, entries[2:]) == [2, 0]
    assert [entry.sequence for entry in fence.pending(redis_client, FIRST)] == [0, 1, 3]


@pytest.mark.parametrize("ends", [False, True])
def test_who_asks_once_more_publishes_nothing_twice(fence: Fence, redis_client: Client, ends: bool) -> None:
    """The answer was lost on its way; meanwhile there may be more to publish, and less in the mailbox."""
    entries = enter(fence, redis_client, FIRST)
    kinds = [RESULT, FAILURE, RESULT, FAILURE]
    answers = [Answer(entry, kind, 0.0, 0.0, "", b"") for entry, kind in zip(entries, kinds, strict=True)]
    for count in (2, 2, 3, 3):
        publishing = fence.publishing(FIRST, answers[:count], ends=ends)
        assert together(redis_client, publishing)[0] == [count, count]
    redis_client.xdel(fence.mailbox.stream, entries[3].id)
    redis_client.xack(fence.mailbox.stream, keys.GROUP, entries[3].id)
    assert together(redis_client, fence.publishing(FIRST, answers, ends=ends))[0] == [3, 3]
    sent = [fields for _, fields in redis_client.call("XRANGE", keys.USUAL.reply(fence.mailbox.run), "-", "+")]
    assert sum(fields.count(b"r") for fields in sent) == 3


def test_a_failure_takes_its_message_along_and_a_result_leaves_it(fence: Fence, redis_client: Client) -> None:
    entries = enter(fence, redis_client, FIRST)
    assert publish(fence, redis_client, FIRST, entries[:1]) == [2, 1]
    assert publish(fence, redis_client, FIRST, entries[1:2], FAILURE) == [3, 1]
    assert [entry.sequence for entry in fence.pending(redis_client, FIRST)] == [0, 2, 3]
    found = redis_client.hmget(fence.key, "answered", "last")
    assert found == [b"0", b"-1"]


def test_the_runner_shuts_everybody_out_when_it_goes_back(fence: Fence, redis_client: Client) -> None:
    entries = enter(fence, redis_client, FIRST)
    fence.rewind(redis_client, 7, ("data", b"mine", ()))
    assert publish(fence, redis_client, FIRST, entries) == -1
    assert fence.snapshot(redis_client.call(*fence.reading())) == (7, b"mine", "")
    seen = fence.look(redis_client)
    assert seen is not None
    assert (seen.last, seen.token) == (7, RUNNER)
    assert redis_client.xlen(fence.mailbox.stream) == 0
    assert 0 < redis_client.pttl(fence.key) <= keys.DATA_TTL


def test_where_there_is_trouble_nobody_enters_any_more(fence: Fence, redis_client: Client) -> None:
    enter(fence, redis_client, FIRST)
    assert fence.say(redis_client, FIRST, "trouble", b"why")
    assert fence.enter(redis_client, 0, FIRST) is None
    seen = fence.look(redis_client)
    assert seen is not None
    assert seen.trouble == b"why"


class Node(SimpleNamespace):
    """What the runner knows of a node."""

    __hash__ = object.__hash__


def test_a_runner_misses_the_word_that_a_message_was_given_up(fence: Fence, redis_client: Client) -> None:
    """Whoever serves the node would wait for ever for a message that does not come."""
    entries = enter(fence, redis_client, FIRST)
    retained = Retained(threading.RLock(), {}, 0)
    retained.give_up(2, Message(2)).sent_at = 1.0
    retained.give_up(3, Message(3)).sent_at = time.monotonic()  # this moment
    there: Any = Node(name="there", retained=retained, limits=SimpleNamespace(pinned=False))
    holdings: Any = SimpleNamespace(mailboxes={"there": fence.mailbox}, keyring=None, names=fence.mailbox.names)
    course: Any = SimpleNamespace(run_id=fence.mailbox.run)
    unasked: Any = None
    states = States(course, holdings, unasked, unasked)
    assert states.missing(redis_client, {there: {(2, GIVEN_UP)}}) == set()
    assert states.missing(redis_client, {there: {(2, 0)}}) == {there}
    assert save(fence, redis_client, FIRST, entries[:3]) == ""
    assert states.missing(redis_client, {there: set()}) == set()


def test_a_snapshot_is_taken_also_while_its_queue_is_said_not_to_answer(fence: Fence, redis_client: Client) -> None:
    entries = enter(fence, redis_client, FIRST)
    assert save(fence, redis_client, FIRST, entries[:3]) == ""
    retained = Retained(threading.RLock(), {}, 0)
    circuit, limits = SimpleNamespace(state="open"), SimpleNamespace(pinned=False)
    there: Any = Node(name="there", retained=retained, limits=limits, circuit=circuit, flights={})
    holdings: Any = SimpleNamespace(
        mailboxes={"there": fence.mailbox}, keyring=None, names=fence.mailbox.names, states={"there"}
    )
    course: Any = SimpleNamespace(run_id=fence.mailbox.run)
    unasked: Any = None
    states = States(course, holdings, unasked, unasked)
    queries = states.asking([there])
    ask(redis_client, queries.values())
    answers = {warp: query.accepted for warp, query in queries.items()}
    states.see(redis_client, there, answers[there], states.news(redis_client, answers)[there])
    assert retained.last == fence.look(redis_client).last == 2  # type: ignore[union-attr]  # it is there


def test_a_snapshot_waits_for_what_the_keeper_is_publishing(fence: Fence, redis_client: Client) -> None:
    """Else its messages are gone when their results come, and those are refused."""
    record = Record("m", {}, timeout=None, linger=0.5, slice=0.2, term=10.0, room=64, budget=1 << 20)
    lease = Lease(fence.mailbox, 0, FIRST, Unarmed(DeadMan(None)))
    serving = StatefulServing(redis_client, lease, record, None)  # type: ignore[arg-type]  # it runs no message here
    with serving.box.emptied():  # as the keeper has it meanwhile
        flushing = threading.Thread(target=serving.flush)
        flushing.start()
        flushing.join(0.1)
        assert flushing.is_alive()
    flushing.join(5.0)
    assert not flushing.is_alive()


def test_many_messages_leave_with_one_snapshot(fence: Fence, redis_client: Client) -> None:
    more = [packed_entry(number, GIVEN_UP, "", b"") for number in range(4, 3000)]
    call(redis_client, fence.mailbox.sending(more, token="t", wanted=0, ttl=1))
    fence.mailbox.receive(redis_client, SECOND, 3000, None)  # another had them, and died
    entries = enter(fence, redis_client, FIRST)
    assert [entry.sequence for entry in entries] == list(range(3000))
    assert entries[-1].attempt == GIVEN_UP
    assert save(fence, redis_client, FIRST, entries) == ""
    assert redis_client.xlen(fence.mailbox.stream) == 0
