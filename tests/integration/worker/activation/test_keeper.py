"""The keeper refreshes bells that are held, never one that was let go, and outlives a bad answer."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.record import Record
from celerypipe.mailbox.wire import packed_entry
from celerypipe.message.message import new_id
from celerypipe.redis import keys
from celerypipe.redis.connection import connect
from celerypipe.redis.script import call
from celerypipe.worker.activation import keeper
from celerypipe.worker.activation.alarm import Unarmed
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.keeper import Keeper, Lease
from celerypipe.worker.activation.neighbours import Neighbours
from celerypipe.worker.activation.serving import Serving
from celerypipe.worker.activation.shelf import Shelf
from tests.servers import eventually

RECORD = Record(mark="m", configuration={}, timeout=None, linger=0.5, slice=0.2, term=10.0, room=64, budget=1 << 20)


class Held:
    """An activation that holds the bell of an empty mailbox of a running run."""

    def __init__(self, client: redis.Redis, url: str) -> None:
        self.mailbox = Mailbox(new_id(), "node")
        client.set(keys.USUAL.run(self.mailbox.run), "running", px=keys.DATA_TTL)
        self.mailbox.make(client)
        self.lease = Lease(self.mailbox, 0, "host.1.token.0", Unarmed(DeadMan(None)))
        assert call(client, self.mailbox.taking(0, self.lease.owner))
        self.keeper = Keeper(lambda: connect(url))
        self.keeper.add(self.lease)
        self.neighbours = Neighbours(
            client,
            Serving(client, self.lease, RECORD, None),  # type: ignore[arg-type]  # it runs no message here
            shelf=Shelf(1, DeadMan(None)),
            keeper=self.keeper,
            slots=1,
            listing_of=lambda mark: None,
            ring=lambda *bell: self.rung.append(bell),
        )
        self.rung: list[object] = []


@pytest.fixture
def held(redis_client: redis.Redis, redis_url: str) -> Any:
    made = Held(redis_client, redis_url)
    yield made
    made.keeper.remove(made.lease)


def test_a_bell_that_is_held_stays_held(held: Any, redis_client: redis.Redis) -> None:
    redis_client.pexpire(held.lease.bell, 2_000)
    eventually(lambda: redis_client.pttl(held.lease.bell) > 2_000, "a refresh")


def test_a_bell_that_was_released_is_not_taken_again(held: Any, redis_client: redis.Redis) -> None:
    assert held.neighbours.release()
    held.keeper._look(redis_client, held.lease)  # its tick came just now, with what it knew a moment ago
    assert redis_client.get(held.lease.bell) is None


def test_a_bell_that_was_handed_back_is_left_to_the_next(held: Any, redis_client: redis.Redis) -> None:
    call(redis_client, held.mailbox.sending([packed_entry(0, 0, "", b"body")], token="t", wanted=0, ttl=1000))
    held.neighbours.end("term")
    assert held.rung
    held.keeper._look(redis_client, held.lease)
    assert redis_client.get(held.lease.bell) != held.lease.owner.encode()
    assert call(redis_client, held.mailbox.taking(0, "host.2.other.0"))


def test_a_bell_that_could_not_be_released_is_kept(held: Any, redis_client: redis.Redis) -> None:
    call(redis_client, held.mailbox.sending([packed_entry(0, 0, "", b"body")], token="t", wanted=0, ttl=1000))
    assert not held.neighbours.release()
    redis_client.pexpire(held.lease.bell, 2_000)
    eventually(lambda: redis_client.pttl(held.lease.bell) > 2_000, "a refresh")


def test_the_bells_of_an_activation_that_broke_off_are_deleted_however_long_redis_is_away(
    held: Any, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = held.lease.beside(Mailbox(held.mailbox.run, "other"))
    assert call(redis_client, beside.mailbox.taking(0, beside.owner))
    tried: list[object] = []

    def away(*_: object) -> None:
        tried.append(None)
        raise redis.ConnectionError("away")

    with monkeypatch.context() as broken:
        broken.setattr(keeper, "drop", away)
        held.keeper.take_back(held.lease)
        eventually(lambda: len(tried) > 2, "several tries")
    eventually(lambda: not redis_client.exists(held.lease.bell, beside.bell), "the end of its bells")
    assert held.keeper.leases == []


def test_one_bad_answer_does_not_end_the_keeper(
    held: Any, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def nonsense(*_: object) -> int:
        asked.append(None)
        raise redis.exceptions.InvalidResponse("nonsense")

    with monkeypatch.context() as broken:
        broken.setattr(Mailbox, "refresh", nonsense)
        eventually(lambda: asked, "a bad answer")
    redis_client.pexpire(held.lease.bell, 2_000)
    eventually(lambda: redis_client.pttl(held.lease.bell) > 2_000, "a refresh")


def test_it_looks_at_what_is_kept_only_while_nothing_is_at_work(held: Any) -> None:
    looks: list[object] = []
    held.keeper._idle = looks.append
    assert not looks
    held.keeper.remove(held.lease)
    eventually(lambda: looks, "a look")
