"""The keeper refreshes bells that are held, never one that was let go, and outlives a bad answer."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from celerypipe.mailbox.mailbox import Beginning, Mailbox
from celerypipe.mailbox.record import Record
from celerypipe.mailbox.wire import packed_entry
from celerypipe.message.message import new_id
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, connect
from celerypipe.redis.script import call
from celerypipe.worker.activation import keeper
from celerypipe.worker.activation.activation import Activation
from celerypipe.worker.activation.alarm import Unarmed
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.keeper import Keeper, Lease
from celerypipe.worker.activation.neighbours import Neighbours
from celerypipe.worker.activation.serving import Serving
from celerypipe.worker.activation.shelf import Shelf
from tests.servers import eventually

UNUSED: Any = SimpleNamespace(mean=None)  # it runs no message here
RECORD = Record(mark="m", configuration={}, timeout=None, linger=0.5, slice=0.2, term=10.0, room=64, budget=1 << 20)


class Held:
    """An activation that holds the bell of an empty mailbox of a running run."""

    def __init__(self, client: Client, url: str) -> None:
        self.mailbox = Mailbox(new_id(), "node")
        client.set(keys.USUAL.run(self.mailbox.run), "running", px=keys.DATA_TTL)
        self.mailbox.make(client)
        self.lease = Lease(self.mailbox, 0, "host.1.token.0", Unarmed(DeadMan(None)))
        assert call(client, self.mailbox.taking(0, self.lease.owner))
        self.client = counted(client)
        self.keepers = counted(connect(url))
        self.keeper = Keeper(lambda: self.keepers)
        self.keeper.add(self.lease)
        self.neighbours = Neighbours(
            self.client,
            Serving(self.client, self.lease, RECORD, UNUSED),
            shelf=Shelf(1, DeadMan(None)),
            keeper=self.keeper,
            slots=1,
            listing_of=lambda mark: None,
            sending=self._sending,
        )
        self.rung: list[object] = []

    def _sending(self, *bell: object) -> Command:
        self.rung.append(bell)
        return ("PING",)

    def take(self, count: int) -> list[Lease]:
        """Serve so many other nodes of the run besides."""
        leases = [self.lease.beside(Mailbox(self.mailbox.run, f"n{number}")) for number in range(count)]
        for lease in leases:
            lease.mailbox.make(self.client)
            assert call(self.client, lease.mailbox.taking(0, lease.owner))
            serving = Serving(self.client, lease, RECORD, UNUSED)
            self.neighbours.servings.append(serving)
            self.keeper.add(lease)
        return leases

    def send(self, lease: Lease) -> None:
        """Send a message to a node."""
        call(self.client, lease.mailbox.sending([packed_entry(0, 0, "", b"body")], token="t", wanted=0, ttl=1000))


class Counted(Client):
    """A client that keeps how many commands each of its round trips had."""

    trips: list[int]

    def ask(self, *commands: Command) -> None:
        self.trips.append(len(commands))
        super().ask(*commands)


def counted(client: Client) -> Counted:
    found = Counted.from_pool(client.connection_pool)
    found.trips = []
    return found


@pytest.fixture
def held(redis_client: Client, redis_url: str) -> Any:
    made = Held(redis_client, redis_url)
    yield made
    for lease in made.keeper.leases:
        made.keeper.remove(lease)


def test_a_bell_that_is_held_stays_held(held: Any, redis_client: redis.Redis) -> None:
    redis_client.pexpire(held.lease.bell, 2_000)
    eventually(lambda: redis_client.pttl(held.lease.bell) > 2_000, "a refresh")


def test_a_bell_that_was_released_is_not_taken_again(held: Any, redis_client: redis.Redis) -> None:
    assert held.neighbours.release()
    held.keeper._look(redis_client, [held.lease])  # its tick came just now, with what it knew a moment ago
    held.keeper._drop(redis_client)
    assert redis_client.get(held.lease.bell) is None


def test_a_bell_that_was_handed_back_is_left_to_the_next(held: Any, redis_client: redis.Redis) -> None:
    call(redis_client, held.mailbox.sending([packed_entry(0, 0, "", b"body")], token="t", wanted=0, ttl=1000))
    held.neighbours.end("term")
    assert held.rung
    held.keeper._look(redis_client, [held.lease])
    held.keeper._drop(redis_client)
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

    def away(bell: str, consumer: str) -> Command:
        tried.append(None)
        return ("NO.SUCH", bell, consumer)

    with monkeypatch.context() as broken:
        broken.setattr(keeper, "dropping", away)
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
        broken.setattr(Mailbox, "refreshing", nonsense)
        eventually(lambda: asked, "a bad answer")
    redis_client.pexpire(held.lease.bell, 2_000)
    eventually(lambda: redis_client.pttl(held.lease.bell) > 2_000, "a refresh")


def test_it_looks_at_what_is_kept_only_while_nothing_is_at_work(held: Any) -> None:
    looks: list[object] = []
    held.keeper._idle = looks.append
    assert not looks
    held.keeper.remove(held.lease)
    eventually(lambda: looks, "a look")


def test_all_bells_are_refreshed_in_one_round_trip(held: Any, redis_client: redis.Redis) -> None:
    leases = [held.lease, *held.take(9)]
    for lease in leases:
        redis_client.pexpire(lease.bell, 2_000)
    held.keepers.trips.clear()
    eventually(lambda: all(redis_client.pttl(lease.bell) > 2_000 for lease in leases), "a refresh of all")
    assert set(held.keepers.trips) == {10}


def test_bells_that_are_lost_or_withdrawn_are_told_apart_in_it(held: Any, redis_client: redis.Redis) -> None:
    lost, refused, over = held.take(3)
    redis_client.set(lost.bell, "other.1.token.0")
    redis_client.delete(refused.bell)
    redis_client.lpush(refused.bell, "no bell")
    over.mailbox = Mailbox(new_id(), "of another run")
    eventually(lambda: lost.state == "lost" and over.state == "over", "what was seen")
    assert held.lease.state == refused.state == "held"


@pytest.mark.parametrize("how", ["serve", "release", "end"])
def test_an_activation_asks_as_often_for_many_nodes_as_for_few(
    held: Any, redis_client: redis.Redis, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trips(count: int) -> list[int]:
        held.neighbours.servings[1:] = []
        leases = held.take(count)
        if how == "end":
            for lease in leases[-2:]:
                held.send(lease)
        held.client.trips.clear()
        if how == "serve":
            seconds, microseconds = redis_client.time()
            beginning = Beginning(b"", True, seconds + microseconds / 1e6, [], [])
            assert Activation(held.client, held.neighbours, beginning, held.keeper).serve() == "idle"
        elif how == "release":
            assert held.neighbours.release()
            assert not any(redis_client.exists(lease.bell) for lease in (held.lease, *leases))
            assert call(redis_client, held.mailbox.taking(0, held.lease.owner))
        else:
            held.neighbours.end("others wait")
            assert len(held.rung) == 1  # whoever answers that bell takes the others
            assert [lease.mailbox for lease in leases if redis_client.exists(lease.bell)] == [held.rung.pop()[1]]
        return list(held.client.trips)

    monkeypatch.setattr(held.neighbours.home, "record", replace(RECORD, linger=0.0))
    trips(1)  # now Redis knows all scripts
    few, many = trips(2), trips(12)
    assert len(few) == len(many)
    assert max(many) >= 12
