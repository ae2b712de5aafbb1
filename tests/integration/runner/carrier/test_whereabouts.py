"""The thread that watches time asks where a late message is; a Redis that froze must not hold it up for each."""

from __future__ import annotations

import signal

import pytest

from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.mailbox import hints
from celerypipe.mailbox.holder import Holder, Process
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.wire import UNBEGUN, Answer, packed_entry
from celerypipe.message.message import Message, new_id
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.script import call
from celerypipe.runner.carrier import whereabouts
from celerypipe.runner.carrier.roster import Roster
from celerypipe.runner.carrier.whereabouts import Whereabouts
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.downstream import Downstream
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp
from tests.servers import RedisServer


def test_a_frozen_redis_is_asked_once_and_not_for_each_late_message(
    private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whereabouts, "SILENCE", 1000.0)
    course = Course("run", folder=None, say=print)
    roster = Roster(course)
    monkeypatch.setattr(roster, "slots", lambda queue: 1)
    node = NodeDefinition(name="there", type="proc", mark="tasks.gpu.Detect", warped=True)
    there = Whereabouts(private_redis.url, roster)
    warp = Warp(course, node, there, Downstream())  # type: ignore[arg-type]  # it is not asked to carry anything
    nearby = {warp: Mailbox("run", "there")}
    flights = [Flight(number, Message(number), sent_at=1.0, entry=b"1-%d" % number) for number in (1, 2)]
    assert private_redis.process is not None
    private_redis.process.send_signal(signal.SIGSTOP)
    try:
        assert "Redis does not answer" in there.withdraw(nearby, warp, flights[0])[0]
    finally:
        private_redis.process.send_signal(signal.SIGCONT)
    # It would answer again, but is not asked for a while: the second message costs no time.
    assert "Redis does not answer" in there.withdraw(nearby, warp, flights[1])[0]
    assert there.began(nearby, warp, flights[1]) == flights[1].sent_at
    there.close()


def test_time_behind_a_message_of_another_node_in_the_same_activation_is_not_its_own(
    redis_url: str, redis_client: Client
) -> None:
    run = new_id()
    course = Course(run, folder=None, say=print)
    there = Whereabouts(redis_url, Roster(course))
    nearby = {}
    for name in ("upstream", "downstream"):
        node = NodeDefinition(name=name, type="proc", mark="tasks.gpu.Detect", warped=True)
        warp = Warp(course, node, there, Downstream())  # type: ignore[arg-type]  # it is not asked to carry anything
        nearby[warp] = Mailbox(run, name)
        nearby[warp].make(redis_client)
        entries = [packed_entry(number, 0, "", b"") for number in range(2)]
        answer = call(redis_client, nearby[warp].sending(entries, token="t", wanted=0, ttl=1000))
        assert answer is not None
        for number, entry in enumerate(answer[0]):
            warp.flights[number] = Flight(number, Message(number), sent_at=1.0, due_since=1.0, entry=entry)
        nearby[warp].receive(redis_client, "host.1.one.0", 2, None)
    upstream, downstream = nearby
    running, *behind = [*upstream.flights.values(), *downstream.flights.values()]
    assert there.began(nearby, upstream, running) == 1.0
    for flight in behind:
        warp = upstream if flight in upstream.flights.values() else downstream
        assert there.began(nearby, warp, flight) > 1.0  # it has not begun: it is behind the one that runs
    redis_client.xack(nearby[upstream].stream, "celerypipe", *(f.entry for f in upstream.flights.values()))
    assert there.began(nearby, downstream, behind[1]) == 1.0  # nothing is before it any more
    there.close()


def test_what_gathers_does_not_run_and_what_failed_together_begins_anew(redis_url: str, redis_client: Client) -> None:
    run, me = new_id(), "host.1.one.0"
    course = Course(run, folder=None, say=print)
    there = Whereabouts(redis_url, Roster(course))
    nearby = {}
    for name in ("gathers", "runs"):
        limits = {"batch": {"size": 4}}
        node = NodeDefinition(name=name, type="proc", mark="tasks.gpu.Detect", warped=True, warp_configuration=limits)
        warp = Warp(course, node, there, Downstream())  # type: ignore[arg-type]  # it is not asked to carry anything
        nearby[warp] = Mailbox(run, name)
        nearby[warp].make(redis_client)
        answer = call(redis_client, nearby[warp].sending([packed_entry(1, 0, "", b"")], token="t", wanted=0, ttl=1000))
        assert answer is not None
        warp.flights[1] = Flight(1, Message(1), sent_at=1.0, due_since=1.0, entry=answer[0][0])
        nearby[warp].receive(redis_client, me, 1, None)
    gathers, runs = nearby
    held, running = gathers.flights[1], runs.flights[1]
    hints.say_held(redis_client, me, {"gathers": held.entry.decode()}, timeout=5.0)
    assert there.began(nearby, gathers, held) > 1.0
    assert there.began(nearby, runs, running) == 1.0
    hints.say_held(redis_client, me, {}, timeout=5.0)
    assert there.began(nearby, gathers, held) == 1.0
    hints.say_anew(redis_client, me, "gathers", [held.entry.decode()])
    assert there.began(nearby, gathers, held) > 1.0
    there.close()


def test_with_a_late_message_its_batch_is_taken_back_as_its_activation_divides_what_it_has(
    redis_url: str, redis_client: Client
) -> None:
    run, me = new_id(), "host.1.one.0"
    course = Course(run, folder=None, say=print)
    there = Whereabouts(redis_url, Roster(course))
    limits = {"batch": {"size": 3}, "timeout": 1.0}
    node = NodeDefinition(name="there", type="proc", mark="tasks.gpu.Detect", warped=True, warp_configuration=limits)
    warp = Warp(course, node, there, Downstream())  # type: ignore[arg-type]  # it is not asked to carry anything
    mailbox = Mailbox(run, "there")
    nearby = {warp: mailbox}
    mailbox.make(redis_client)

    def given(*alone: int) -> list[Flight]:
        """Five messages that an activation holds, some of which are run by themselves."""
        entries = [packed_entry(number, 0, "", b"", alone=number in alone) for number in range(5)]
        answer = call(redis_client, mailbox.sending(entries, token="t", wanted=0, ttl=1000))
        assert answer is not None
        for number, entry in enumerate(answer[0]):
            warp.flights[number] = Flight(number, Message(number), alone=number in alone, sent_at=1.0, entry=entry)
        assert [entry.alone for entry in mailbox.receive(redis_client, me, 5, None)] == [n in alone for n in range(5)]
        return list(warp.flights.values())

    def taken(flights: list[Flight]) -> tuple[list[int], list[int]]:
        """The batch of the first one, and what is behind that."""
        _, batch, behind = there.withdraw(nearby, warp, flights[0]) or ("", [], [])
        assert not mailbox.given_ids(redis_client, 9)
        return [flight.sequence for flight in batch], [flight.sequence for _, flight in behind]

    assert taken(given()) == ([0, 1, 2], [3, 4])
    assert taken(given(2)) == ([0, 1], [2, 3, 4])
    assert taken(given(0)) == ([], [1, 2, 3, 4])
    flights = given()
    hints.say_anew(redis_client, me, "elsewhere", [flights[0].entry.decode()])  # it may have an entry of that id too
    assert taken(flights) == ([0, 1, 2], [3, 4])
    flights = given()
    hints.say_anew(redis_client, me, "there", [flight.entry.decode() for flight in flights[:3]])
    redis_client.pexpire(redis_client.names.anew(me), keys.DATA_TTL - 1500)  # 1.5 s ago
    assert taken(flights) == ([], [1, 2, 3, 4])
    assert [flight.alone for flight in flights] == [False, True, True, False, False]
    flights = given()
    hints.say_anew(redis_client, me, "there", [flight.entry.decode() for flight in flights[:3]])
    assert taken(flights) == ([0], [1, 2, 3, 4])  # it begins this moment, after it was found to be late
    there.close()


def test_what_has_its_answer_is_not_taken_back(redis_url: str, redis_client: Client) -> None:
    """It was answered, or given back, since it was found to be late; the runner has not read that yet."""
    run, me = new_id(), "host.1.one.0"
    there = Whereabouts(redis_url, Roster(Course(run, folder=None, say=print)))
    node = NodeDefinition(name="there", type="proc", mark="tasks.gpu.Detect", warped=True)
    warp = Warp(Course(run, folder=None, say=print), node, there, Downstream())  # type: ignore[arg-type]  # it carries nothing
    mailbox = Mailbox(run, "there")
    mailbox.make(redis_client)
    redis_client.xadd(mailbox.reply, {"n": ""})
    entries = [packed_entry(number, 0, "", b"") for number in range(3)]
    ids, _ = call(redis_client, mailbox.sending(entries, token="t", wanted=0, ttl=1000))
    for number, entry in enumerate(ids):
        warp.flights[number] = Flight(number, Message(number), sent_at=1.0, entry=entry)
    first, *_ = mailbox.receive(redis_client, me, 3, None)
    mailbox.publish(redis_client, me, [Answer(first, UNBEGUN, 0.0, 0.0, "", b"")])
    assert there.withdraw({warp: mailbox}, warp, warp.flights[0]) is None
    assert mailbox.given_ids(redis_client, 9) == set(ids[1:])
    assert mailbox.withdraw(redis_client, ids) == set(ids[1:])
    warp.flights[
        0
    ].remaking = True  # its answer was read: its payload is lost, and somebody may hang who makes it again
    assert there.withdraw({warp: mailbox}, warp, warp.flights[0]) is not None
    there.close()


def test_what_an_activation_left_stands_still_until_its_process_is_replaced(
    redis_url: str, redis_client: Client
) -> None:
    """One of a stateful node gives nothing back: its messages stay its own until the next one takes them over."""
    run, queue, process = new_id(), f"freed{new_id()}", Process("host", 1, "ab")
    course = Course(run, folder=None, say=print)
    there = Whereabouts(redis_url, Roster(course))
    limits = {"queue": queue}
    node = NodeDefinition(name="there", type="proc", mark="tasks.gpu.Detect", warped=True, warp_configuration=limits)
    warp = Warp(course, node, there, Downstream())  # type: ignore[arg-type]  # it is not asked to carry anything
    mailbox = Mailbox(run, "there")
    mailbox.make(redis_client)
    me, bell = str(Holder(process, "one", 0)), f"{mailbox.bell}0"
    answer = call(redis_client, mailbox.sending([packed_entry(1, 0, "", b"")], token="t", wanted=0, ttl=1000))
    assert answer is not None
    flight = warp.flights[1] = Flight(1, Message(1), sent_at=1.0, due_since=1.0, entry=answer[0][0])
    redis_client.set(bell, me, px=60_000)
    mailbox.receive(redis_client, me, 1, None)
    hints.say_freeing(redis_client, [queue], str(process), keys.FREEING_MOST)
    assert there.began({warp: mailbox}, warp, flight) == 1.0  # it runs
    redis_client.delete(bell)
    assert there.began({warp: mailbox}, warp, flight) > 1.0
    hints.say_replaced(redis_client, [queue], Process("host", 2, "cd"))
    assert there.began({warp: mailbox}, warp, flight) > 1.0  # until a moment ago
    assert there.began({warp: mailbox}, warp, flight) == 1.0
    there.close()


def test_a_slot_comes_back_when_whoever_says_the_longest_says_so(redis_client: Client) -> None:
    queue, process = f"freed{new_id()}", "host.1.ab"
    hints.say_freeing(redis_client, [queue], process, keys.FREEING_MOST)
    (told,) = redis_client.zrange(keys.USUAL.freeing(queue), 0, -1, withscores=True)
    hints.say_freeing(redis_client, [queue], process)  # a runner, a moment later
    assert redis_client.zrange(keys.USUAL.freeing(queue), 0, -1, withscores=True) == [told]
    hints.say_freed(redis_client, [queue], process)
    assert not hints.is_freeing(redis_client, queue)
