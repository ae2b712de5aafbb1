"""Who lives, as runs look at it each second: the workers of their own queues, of whom little is read more than once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from celerypipe.mailbox.presence import (
    LiveWorkers,
    Presence,
    read_presences,
    removing_presence,
    revised,
    saying_presence,
)
from celerypipe.mailbox.protocol import SPOKEN
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from celerypipe.redis.script import call
from tests.servers import RedisServer


def worker(pid: int, *queues: str) -> Presence:
    """What a worker says of itself."""
    return {
        "id": f"box.{pid}.ab{pid}",
        "host": "box",
        "pid": pid,
        "pool": "solo",
        "slots": 1,
        "queues": [*queues],
        "marks": {},
        "versions": {},
        "protocol": [*SPOKEN],
    }


def say(client: Client, record: Presence, ahead: float = 0.0) -> None:
    """Say that it is there, as its heartbeat does; ``ahead``: seconds that its clock is."""
    command = saying_presence(client.names, record)
    assert client.call(*[time.time() + ahead if part is None else part for part in command]) == 1


def appear(client: Client, record: Presence) -> None:
    """Say that it lives, and have its heart beat."""
    say(client, record)
    beat(client, record)


def beat(client: Client, record: Presence) -> None:
    """Have its heart beat, which tells of the revision of what it says."""
    revision = f"={record['revision']}" if "revision" in record else ""
    client.set(keys.USUAL.heartbeat("box", f"ab{record['pid']}"), f" {record['pid']} {revision}", px=60_000)


def look(live: LiveWorkers, client: Client, queues: list[str]) -> list[Presence]:
    return live.told(client, call(client, live.asking(client.names, queues)))


def names(found: list[Presence]) -> list[int]:
    return sorted(each["pid"] for each in found)


def test_a_run_sees_the_workers_of_its_queues_as_long_as_they_live(private_redis: RedisServer) -> None:
    with connect(private_redis.url) as client:
        both = worker(2, "near", "next")
        for each in (worker(1, "near"), both, worker(3, "far")):
            appear(client, each)
        live = LiveWorkers()
        assert names(look(live, client, ["near"])) == [1, 2]
        assert names(look(live, client, ["near", "next", "nobody"])) == [1, 2]
        assert names(read_presences(client)) == [1, 2, 3]
        client.together(*removing_presence(client.names, both["id"], both["queues"]))
        client.delete(keys.USUAL.heartbeat("box", "ab1"))
        assert look(live, client, ["near", "next"]) == []
        assert names(read_presences(client)) == [3]


def test_what_a_worker_says_is_read_again_when_it_changes_and_of_other_queues_nothing(
    private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    with connect(private_redis.url) as client:
        appear(client, revised(worker(1, "near")))
        appear(client, revised(worker(2, "far")))
        look(LiveWorkers(), client, ["nobody"])  # Redis knows the script from now on
        answer = client.call
        monkeypatch.setattr(client, "call", lambda *command: asked.append(command) or answer(*command))
        live = LiveWorkers()
        first, again = look(live, client, ["near"]), look(live, client, ["near"])
        assert asked == [("MGET", keys.USUAL.presence("box.1.ab1"))]
        assert first == again
        changed = revised({**worker(1, "near"), "slots": 5})
        beat(client, changed)  # before it is said: what is read meanwhile is no more than what it is
        assert [each["slots"] for each in look(live, client, ["near"])] == [1]
        say(client, changed, ahead=60.0)
        for _ in range(2):
            assert [(each["slots"], round(each["clock"])) for each in look(live, client, ["near"])] == [(5, 60)]
        assert [command[0] for command in asked] == ["MGET", "MGET", "EVAL", "MGET"]  # one of them says it


def test_where_a_worker_tells_of_no_revision_it_is_read_at_each_look(private_redis: RedisServer) -> None:
    with connect(private_redis.url) as client:
        live = LiveWorkers()
        for slots in (1, 2):
            appear(client, {**worker(1, "near"), "slots": slots})
            assert [each["slots"] for each in look(live, client, ["near"])] == [slots]


def test_what_the_dead_said_is_not_read_again_and_whoever_comes_back_is_there(
    private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    with connect(private_redis.url) as client:
        lately, foreign = (revised(worker(pid, "near")) for pid in (1, 2))
        foreign["protocol"] = [SPOKEN.number + 1] * 2
        for each in (lately, foreign):
            say(client, each)
        client.zadd(keys.USUAL.serving("near"), {"nobody.9.ab9": (time.time() + 60) * 1000})  # said nothing
        look(LiveWorkers(), client, ["nobody"])  # Redis knows the script from now on
        answer = client.call
        monkeypatch.setattr(client, "call", lambda *command: asked.append(command[0]) or answer(*command))
        live = LiveWorkers()
        for _ in range(3):
            assert names(look(live, client, ["near"])) == [2]
        assert asked == ["MGET"]
        beat(client, lately)  # it was only not heard for a moment: what it says is known
        assert names(look(live, client, ["near"])) == [1, 2]
        assert asked == ["MGET"]
        client.delete(keys.USUAL.heartbeat("box", "ab1"))
        say(client, revised({**lately, "slots": 5}), ahead=1.0)
        assert names(look(live, client, ["near"])) == [2]
        appear(client, revised({**lately, "slots": 6}))
        assert {each["pid"]: each.get("slots") for each in look(live, client, ["near"])}[1] == 6


def test_those_who_are_gone_are_forgotten_where_the_living_speak(private_redis: RedisServer) -> None:
    with connect(private_redis.url) as client:
        client.zadd(keys.USUAL.serving("near"), {"gone.7.ab": 1})
        appear(client, worker(1, "near"))
        assert client.zrange(keys.USUAL.serving("near"), 0, -1) == [b"box.1.ab1"]
        assert 0 < client.ttl(keys.USUAL.serving("near")) <= 10 * keys.PRESENCE_TTL
