"""Room: what is used least lately goes, nothing but the cache's own ever goes, and a full Redis fails nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from celerypipe.cache.index import stats
from celerypipe.cache.scripts import FORGET, SHRINK
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from tests.runs.asking import Asking, asked, asking
from tests.servers import RedisServer, eventually
from tests.servers.redis import TunedRedis

KILOBYTE = 1024
MEGABYTE = 1024 * KILOBYTE


def noise(size: int) -> bytes:
    """Bytes that are like no others."""
    return os.urandom(size)


def keep(ask: Asking, number: object, size: int) -> None:
    """Compute something of this size, and wait until it is kept or is not."""
    ask.compute(asked(number), noise(size))
    eventually(lambda: not ask.cache._desk._open, "the end of the claim")


def is_there(ask: Asking, number: object) -> bool:
    try:
        ask.payload(asked(number))
    except KeyError:
        return False
    return True


@pytest.fixture
def small_redis() -> Iterator[TunedRedis]:
    """A Redis that takes 24 MB and evicts nothing."""
    server = TunedRedis(settings={"maxmemory": "24mb", "maxmemory-policy": "noeviction"}).start()
    yield server
    server.remove()


@pytest.mark.parametrize("size", [40 * KILOBYTE, 200 * KILOBYTE], ids=["inline", "blobs"])
def test_what_is_used_stays_and_what_is_not_goes(private_redis: RedisServer, size: int) -> None:
    with asking(private_redis.url, size=10 * size) as ask, connect(private_redis.url) as client:
        client.set("not the cache's", b"x" * MEGABYTE)
        for number in range(40):
            keep(ask, number, size)
            ask.cache._books._uses.clear()  # as if some time had passed
            assert is_there(ask, 0)
            assert stats(client).bytes <= 10 * size
        assert is_there(ask, 39)
        assert not any(is_there(ask, number) for number in range(1, 30))
        kept = sum(client.strlen(name) for name in client.scan_iter("celerypipe:cache:[eb]*:*"))
        assert 5 * size < kept <= stats(client).bytes <= 10 * size
        assert client.strlen("not the cache's") == MEGABYTE
        ask.cache.close()
        assert stats(client).evicted >= 30


def test_one_result_never_pushes_out_all_others(private_redis: RedisServer) -> None:
    with asking(private_redis.url, size=4 * MEGABYTE) as ask:
        keep(ask, "small", 10)
        keep(ask, "large", 3 * MEGABYTE)
        assert is_there(ask, "small")
        assert not is_there(ask, "large")
        assert len(ask.said) == 1
        assert "CELERYPIPE_CACHE_BYTES" in ask.said[0]


def test_the_cache_takes_no_more_than_half_of_redis(small_redis: TunedRedis) -> None:
    with asking(small_redis.url, size=1 << 30) as ask, small_redis.client() as client:
        for number in range(60):
            keep(ask, number, MEGABYTE // 2)
        assert 6 * MEGABYTE < stats(client).bytes <= 12 * MEGABYTE
        assert is_there(ask, 59)
        assert not ask.said


def test_a_full_redis_fails_nobody_and_mailboxes_get_the_room(small_redis: TunedRedis) -> None:
    with asking(small_redis.url, size=1 << 30) as ask, small_redis.client() as client:
        for number in range(30):
            keep(ask, number, MEGABYTE // 2)
        mailbox = Mailbox("run", "node")
        mailbox.make(client)
        entries = fill(client, mailbox)
        # The cache gives way, by itself and where it wants to write; what is in the mailbox is there to the last byte.
        for most in (10, 8):
            eventually(partial(has_less_than, client, most * MEGABYTE), "some room")
            entries += fill(client, mailbox)
        for number in range(100, 130):
            ask.compute(asked(number), noise(MEGABYTE // 2))
            ask.compute(asked((number, "small")), noise(KILOBYTE))
        eventually(lambda: not ask.cache._desk._open, "the end of all claims")
        assert client.xlen(mailbox.stream) == entries
        client.delete(mailbox.stream)
        keep(ask, "afterwards", MEGABYTE // 2)
        assert is_there(ask, "afterwards")
        assert len(ask.said) == len(set(ask.said))


def has_less_than(client: Client, size: int) -> bool:
    return stats(client).bytes < size


def fill(client: Client, mailbox: Mailbox) -> int:
    """Send messages until Redis is full; return how many it took."""
    count = 0
    while mailbox_takes(client, mailbox):
        count += 1
    return count


def mailbox_takes(client: Client, mailbox: Mailbox) -> bool:
    answer = client.together(("XADD", mailbox.stream, "*", "m", noise(64 * KILOBYTE)))[0]
    return isinstance(answer, bytes)


def test_books_that_were_lost_are_written_again(private_redis: RedisServer) -> None:
    with asking(private_redis.url, size=10 * MEGABYTE) as ask, connect(private_redis.url) as client:
        for number in range(5):
            keep(ask, number, 200 * KILOBYTE)
        before = stats(client)
        client.delete(keys.USUAL.cache_used, keys.USUAL.cache_sizes, keys.USUAL.cache_ends)
        ask.cache._books._uses.clear()
        assert all(is_there(ask, number) for number in range(5))
        keep(ask, 0, 1)  # uses are noted with the next thing that is asked
        assert (stats(client).entries, stats(client).blobs) == (5, 5)
        assert abs(stats(client).bytes - before.bytes) < 10 * KILOBYTE


def test_books_that_lie_touch_nothing_else(private_redis: RedisServer) -> None:
    """Whatever a stranger enters in the books: only keys of the cache are removed."""
    with asking(private_redis.url, size=MEGABYTE) as ask, connect(private_redis.url) as client:
        others = ["queue", "celerypipe:mailbox:r:n", "_kombu.binding.x", "e:queue"]
        for name in others:
            client.set(name, "x")
            for what in (name, f"e:{name}", f"b:{name}:1", f"b:abc:999999999 {name}", "b:zz:1", "e:", ""):
                client.zadd(keys.USUAL.cache_used, {what: 1})
                client.hset(keys.USUAL.cache_sizes, what, 1000)
        client.hset(keys.USUAL.cache_sizes, "", 10**12)
        for number in range(40):
            keep(ask, number, 50 * KILOBYTE)
        assert client.exists(*others) == len(others)
        assert is_there(ask, 39)
        assert 0 < stats(client).bytes <= MEGABYTE


@pytest.mark.parametrize("garbage", [b"\xff{}", b"nan", b"-inf", b"", b"0x"])
def test_books_in_which_a_number_is_none_are_mended(private_redis: RedisServer, garbage: bytes) -> None:
    with asking(private_redis.url, size=MEGABYTE) as ask, connect(private_redis.url) as client:
        keep(ask, 0, 50 * KILOBYTE)
        for what in (b"", *client.hkeys(keys.USUAL.cache_sizes)):
            client.hset(keys.USUAL.cache_sizes, what, garbage)
        client.hset(keys.USUAL.cache_counts, "evicted", garbage)
        for number in range(1, 40):
            keep(ask, number, 50 * KILOBYTE)
        assert is_there(ask, 39)
        assert 0 < stats(client).bytes <= MEGABYTE


def test_everything_in_redis_has_an_end(private_redis: RedisServer) -> None:
    with asking(private_redis.url) as ask, connect(private_redis.url) as client:
        ask.compute(asked(1), np.ones(50_000), node="n", message="0")
        ask.compute(asked(2), 1)
        ask.start(asked(3)).claim()
        assert ask.payload(asked(1)).all()
        eventually(lambda: client.exists(keys.USUAL.cache_counts), "the counts")
        eventually(lambda: ask.cache.stats.kept == 2, "two entries")
        names = list(client.scan_iter("*"))
        assert len(names) > 8
        assert [name for name in names if client.pttl(name) < 0] == []


def test_whatever_is_written_while_something_goes_ends_by_itself(redis_client: Client) -> None:
    names = keys.Names("celerypipe@room")
    used, sizes, _ = names.cache_books
    for ask, what in [(FORGET, "e:only"), (SHRINK, "100")]:
        redis_client.hset(sizes, "e:only", 100)  # the sum was lost
        redis_client.zadd(used, {"e:only": redis_client.now() * 1000})
        for name in (used, sizes):
            redis_client.pexpire(name, 60_000)
        if ask is SHRINK:
            redis_client.hset(sizes, "", 100)
        ask(redis_client, names.cache_books, what)
        found = [name for name in (*names.cache_books, names.cache_counts) if redis_client.exists(name)]
        assert found
        assert all(redis_client.pttl(name) > 0 for name in found)
    assert redis_client.hget(names.cache_counts, "evicted") == b"1"
