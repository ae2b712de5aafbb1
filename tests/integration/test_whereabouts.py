"""The thread that watches time asks where a late message is; a Redis that froze must not hold it up for each."""

from __future__ import annotations

import signal

import pytest

from celerypipe import whereabouts
from celerypipe.bells import Bells
from celerypipe.mailbox import Mailbox
from celerypipe.message import Message
from celerypipe.pipeline import NodeDefinition
from celerypipe.station import Course
from celerypipe.warp import Flight, Warp
from celerypipe.whereabouts import Whereabouts
from tests.servers import RedisServer


def test_a_frozen_redis_is_asked_once_and_not_for_each_late_message(
    private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whereabouts, "SILENCE", 1000.0)
    course = Course("run", folder=None, say=print)
    bells = Bells(course, private_redis.url)
    monkeypatch.setattr(bells, "slots", lambda queue: 1)
    node = NodeDefinition(name="there", type="proc", mark="tasks.gpu.Detect", warped=True)
    there = Whereabouts(private_redis.url, bells)
    warp = Warp(course, node, there)  # type: ignore[arg-type]  # it is not asked to carry anything
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
