"""What a run holds in Redis lives on with it."""

from __future__ import annotations

import secrets

from celerypipe.mailbox.blob.blob import Blobs, Store
from celerypipe.mailbox.record import Record
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.script import call
from celerypipe.runner.carrier.holdings import Holdings


def test_the_count_of_deaths_lives_as_long_as_the_run(redis_client: Client) -> None:
    """Else a message that takes longer than a minute before it kills its process would never be given up."""
    run = secrets.token_hex(6)
    holdings = Holdings(run, Blobs(Store(run)))
    holdings.plan({"node": Record("m", {}, None, 1.0, 1.0, 9.0, 64, 1 << 20)}, {})
    holdings.make(redis_client)
    assert call(redis_client, holdings.renewing()) == [b"running", 1]  # nobody died yet
    attempts = keys.USUAL.attempts(run, "node")
    redis_client.hset(attempts, "1", 1)
    redis_client.pexpire(attempts, 2_000)
    assert call(redis_client, holdings.renewing()) == [b"running", 1]
    assert redis_client.pttl(attempts) > keys.DATA_TTL - 2_000
    holdings.remove(redis_client, "finished", slots={"node": 1})
    assert not redis_client.exists(attempts)


def test_a_key_that_is_missing_is_noticed(redis_client: Client) -> None:
    run = secrets.token_hex(6)
    holdings = Holdings(run, Blobs(Store(run)))
    holdings.plan({name: Record("m", {}, None, 1.0, 1.0, 9.0, 64, 1 << 20) for name in ("one", "two")}, {})
    for name in (keys.USUAL.reply(run), keys.USUAL.mailbox(run, "two"), keys.USUAL.node(run, "one")):
        holdings.make(redis_client)
        assert call(redis_client, holdings.renewing()) == [b"running", 1]
        redis_client.delete(name)
        assert call(redis_client, holdings.renewing()) == [b"running", 0]
    holdings.remove(redis_client, "finished", slots={"one": 1, "two": 1})
