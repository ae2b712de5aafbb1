"""What a run holds in Redis lives on with it."""

from __future__ import annotations

import secrets

import pytest

from celerypipe.mailbox.blob.blob import Blobs, Store
from celerypipe.mailbox.presence import read_presences
from celerypipe.mailbox.record import Record
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command
from celerypipe.runner.carrier.counting import Counting
from celerypipe.runner.carrier.holdings import Holdings
from celerypipe.runner.stations.course import Course

#: A run without a node that anything is counted of.
NOTHING = Counting(Course("run", folder=None, say=print), keys.USUAL, {})


def test_the_count_of_deaths_lives_as_long_as_the_run(redis_client: Client) -> None:
    """Else a message that takes longer than a minute before it kills its process would never be given up."""
    run = secrets.token_hex(6)
    holdings = Holdings(run, Blobs(Store(run)))
    holdings.plan({"node": Record("m", {}, None, 1.0, 1.0, 9.0, 64, 1 << 20)}, {})
    holdings.make(redis_client)
    assert holdings.renew(redis_client, NOTHING) == (b"running", True)  # nobody died yet
    attempts = keys.USUAL.attempts(run, "node")
    redis_client.hset(attempts, "1", 1)
    redis_client.pexpire(attempts, 2_000)
    assert holdings.renew(redis_client, NOTHING) == (b"running", True)
    assert redis_client.pttl(attempts) > keys.DATA_TTL - 2_000
    holdings.remove(redis_client, "finished", slots={"node": 1})
    assert not redis_client.exists(attempts)


def test_a_look_is_as_many_round_trips_for_many_nodes_and_workers_as_for_one(
    redis_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = Client.ask

    def counted(client: Client, *commands: Command) -> None:
        asked.append(len(commands))
        ask(client, *commands)

    monkeypatch.setattr(Client, "ask", counted)
    looks = []
    for size in (1, 20):
        run, names = secrets.token_hex(6), keys.Names(f"celerypipe@{secrets.token_hex(4)}")
        holdings = Holdings(run, Blobs(Store(run)))
        nodes = [f"node{number}" for number in range(size)]
        holdings.plan(dict.fromkeys(nodes, Record("m", {}, None, 1.0, 1.0, 9.0, 64, 1 << 20)), {})
        holdings.make(redis_client)
        redis_client.zadd(names.workers, {f"host.{number}.ab": 1 for number in range(size)})
        asked.clear()
        assert holdings.renew(redis_client, NOTHING) == (b"running", True)
        assert read_presences(redis_client, names) == []
        looks.append(len(asked))
        redis_client.delete(names.workers)
        holdings.remove(redis_client, "finished", slots=dict.fromkeys(nodes, 1))
    assert looks == [3, 3]
