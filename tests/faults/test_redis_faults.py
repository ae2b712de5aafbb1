"""Redis goes away, comes back empty, freezes: every message once, in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from celerypipe import Message, Runner
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import RedisServer, StartWorker
from tests.servers.extent import at_length

COUNT = 1200


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("harm", "pool", "slots"),
    [
        (RedisServer.flush, "solo", 1),
        pytest.param(RedisServer.restart_empty, "prefork", 2, marks=at_length),
        (RedisServer.freeze, "solo", 1),
        pytest.param(RedisServer.flush, "prefork", 2, marks=at_length),
        (RedisServer.restart_empty, "solo", 1),
        pytest.param(RedisServer.freeze, "prefork", 2, marks=at_length),
    ],
)
def test_every_message_comes_back_once_in_order(
    start_worker: StartWorker, private_redis: RedisServer, harm: Callable[[RedisServer], None], pool: str, slots: int
) -> None:
    start_worker("fragile", url=private_redis.url, pool=pool, concurrency=slots, config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", "fragile", configuration={"delay": 0.002})
    reading = Reading(Runner(private_redis.url).stream(pipeline, (Message(number) for number in range(COUNT))))
    reading.wait_for(200)
    harm(private_redis)
    assert reading.payloads() == list(range(COUNT))


def test_a_lost_blob_is_sent_again(start_worker: StartWorker, private_redis: RedisServer) -> None:
    start_worker("blobs", url=private_redis.url, pool="solo", config=CONFIG)
    pipeline = warped("tests.nodes.remote.Echo", "blobs", configuration={"delay": 0.01})
    content = [bytes([number % 256]) * 100_000 for number in range(200)]
    reading = Reading(Runner(private_redis.url, shared_memory=False).stream(pipeline, map(Message, content)))
    reading.wait_for(20)
    with redis.Redis.from_url(private_redis.url) as client:
        blobs = list(client.scan_iter("celerypipe:blob:*", count=1000))
        assert blobs
        client.delete(*blobs)
    assert reading.payloads() == content
