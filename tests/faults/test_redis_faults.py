"""Redis goes away, comes back empty, freezes: every message once, in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest
import redis

from celerypipe import Message, Runner
from tests.faults.test_worker_faults import Reading
from tests.integration.runner.warp.test_warp import CONFIG, warped
from tests.servers import RedisServer, StartWorker
from tests.servers.extent import at_length

COUNT = 1200


def flush(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


def restart_empty(server: RedisServer) -> None:
    server.stop()
    server.start()


def freeze(server: RedisServer) -> None:
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    threading.Event().wait(4.0)  # longer than the lease of a bell
    os.kill(server.process.pid, signal.SIGCONT)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("harm", "pool", "slots"),
    [
        (flush, "solo", 1),
        (restart_empty, "prefork", 2),
        (freeze, "solo", 1),
        pytest.param(flush, "prefork", 2, marks=at_length),
        pytest.param(restart_empty, "solo", 1, marks=at_length),
        pytest.param(freeze, "prefork", 2, marks=at_length),
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
