"""The way to Redis breaks, crawls or goes silent: every message once, in order, workers resume."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from celerypipe.redis.connection import connect
from tests.nodes.remote import CONFIG
from tests.runs.counted import Counted, lasting
from tests.servers import POOLS, StartWorker
from tests.servers.extent import LONG
from tests.servers.proxy import Proxy
from tests.servers.redis import TunedRedis


def cut(proxy: Proxy) -> None:
    proxy.cut(refusing=False)


def cut_for_a_while(proxy: Proxy) -> None:
    proxy.cut(refusing=True)
    lasting()
    proxy.mend()


def throttle(proxy: Proxy) -> None:
    proxy.rate = 4000
    lasting()
    proxy.mend()


def swallow(proxy: Proxy) -> None:
    """As a firewall that forgot a connection: nothing comes, and nobody is told."""
    proxy.swallow()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("harm", [cut_for_a_while, throttle, *([cut, swallow] if LONG else [])])
@pytest.mark.parametrize(("pool", "slots"), POOLS if LONG else [("solo", 1)])
def test_every_message_arrives_once_over_a_bad_line(
    start_worker: StartWorker, durable_redis: TunedRedis, harm: Callable[[Proxy], None], pool: str, slots: int
) -> None:
    with Proxy(durable_redis.folder / "redis.sock") as proxy:
        worker = start_worker("line", url=proxy.url, pool=pool, concurrency=slots, config=CONFIG)
        counted = Counted(proxy.url, "line", worker)
        harm(proxy)
        counted.assert_all_once_in_order()
        worker.stop()


@pytest.mark.skipif(not LONG, reason="takes 10 s; test_connection.py looks at the pieces")
def test_a_large_payload_gets_over_a_slow_line(durable_redis: TunedRedis) -> None:
    """The timeout of a socket is for all of one write: what takes longer than that would be tried again for ever."""
    content = bytes(64 * 1024 * 1024)
    with Proxy(durable_redis.folder / "redis.sock") as proxy, connect(proxy.url, timeout=4.0) as client:
        assert client.call("PING") == b"PONG"
        proxy.rate = 8_000_000
        assert client.call("SET", "large", [content]) == b"OK"
    with durable_redis.client() as client:
        assert client.strlen("large") == len(content)
