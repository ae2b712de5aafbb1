"""What the cache says of itself: figures, a list, why something was not found, and how things are removed."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from celerypipe.cache.asked import Asked
from celerypipe.cache.explain import explain
from celerypipe.cache.index import clear, entries, remove, stats
from celerypipe.definition.cache import CacheDefinition
from celerypipe.errors import ConfigError
from celerypipe.message.message import Message
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from tests.runs.asking import PARENT, Asking, asked, asking, keep
from tests.servers import RedisServer, eventually


def why(ask: Asking, client: Client, what: Asked, message: str, **options: bool) -> str:
    """Miss it as a message, and ask why."""
    ask.start(what, node="detect", message=message, **options).claim().drop()

    def said() -> str:
        try:
            return explain(client, "run-1", "detect", message)
        except ConfigError:
            return ""

    return eventually(said, "the note")


def test_the_figures_the_list_and_the_removal(private_redis: RedisServer) -> None:
    large, other = np.ones(50_000), np.zeros(50_000)
    with asking(private_redis.url) as ask, connect(private_redis.url) as client:
        keep(ask, asked(1), large)
        keep(ask, asked(2, mark="tests.Other"), large)
        keep(ask, asked(3), other)
        keep(ask, asked(4, threshold="0.7"), 1)
        assert ask.payload(asked(4, threshold="0.7")) == 1
        ask.cache.close()
        said = stats(client)
        assert (said.entries, said.blobs, said.hits, said.misses, said.kept) == (4, 2, 1, 4, 4)
        assert (said.seconds_saved, said.evicted) == (0.5, 0)
        assert said.bytes == sum(map(int, client.hvals(keys.USUAL.cache_sizes))) - said.bytes > 800_000

        assert [each.asked.input for each in entries(client)] == ["input 4", "input 3", "input 2", "input 1"]
        [one] = entries(client, "*.Other")
        assert (one.asked.mark, one.size > large.nbytes, one.failure) == ("tests.Other", True, None)
        assert [each.fingerprint for each in entries(client, one.fingerprint)] == [one.fingerprint]
        assert next(entries(client)).asked.configuration == {"threshold": "0.7"}

        assert remove(client, [one.fingerprint]) < 10_000  # its large bytes are another's as well
        removed = remove(client, [asked(1).fingerprint, asked(3).fingerprint])
        assert removed > large.nbytes + other.nbytes
        assert [each.asked.input for each in entries(client)] == ["input 4"]
        assert not list(client.scan_iter(f"{keys.USUAL.cache}blob:*"))
        assert stats(client).blobs == 0
        client.set("celerypipe:mailbox:not the cache's", 1)
        assert clear(client) > 0
        assert client.keys() == [b"celerypipe:mailbox:not the cache's"]


def test_who_may_not_list_keys_can_still_remove_what_is_known(private_redis: RedisServer) -> None:
    with asking(private_redis.url) as ask, connect(private_redis.url) as client:
        keep(ask, asked(1), np.ones(50_000))
        ask.cache.close()
        client.execute_command("ACL", "SETUSER", "weak", "on", "nopass", "~celerypipe:*", "+@all", "-scan", "-keys")
        with connect(private_redis.url.replace("unix://", "unix://weak:x@")) as weak:
            assert stats(weak).entries == 1
            assert clear(weak) > 2
        assert not list(client.scan_iter("celerypipe:cache:[eb]*:*"))


def test_it_says_which_part_differs_from_the_nearest(private_redis: RedisServer) -> None:
    with asking(private_redis.url) as ask, connect(private_redis.url) as client:
        assert why(ask, client, asked(1), "0") == "no earlier result of tests.Node is in the cache"
        for each in (asked(1, threshold="0.6", label="blake3:" + 64 * "a"), asked(2), asked(3)):
            keep(ask, each, 1)
        now = asked(1, threshold="0.5", mode="'fast'")
        assert re.fullmatch(
            r"the nearest result is \d+\.\d seconds older; what differs:\n"
            r"  the configuration: threshold 0\.5, was 0\.6\n"
            r"  the configuration: mode 'fast', was not there\n"
            r"  the configuration: label is not there, was blake3:aaaaaaaaaaaa…",
            why(ask, client, now, "1"),
        )
        assert why(ask, client, asked(2, code="version 2"), "2").endswith(
            "differs:\n  the code: version 2, was version 1"
        )
        assert why(ask, client, asked(4), "3").endswith("differs:\n  the input: another payload")
        noted = Asked("tests.Node", "version 1", {"threshold": "0.5"}, "input 2", {"page": "abc"}, asked(2).exact)
        assert why(ask, client, noted, "4").endswith("differs:\n  the meta: page, which was not there")
        exactly = Asked("tests.Node", "version 1", {"threshold": "0.5"}, "input 2", {}, "another")
        assert why(ask, client, exactly, "5").endswith("the configuration: two values that look the same and are not")


def test_it_says_when_nothing_differs(private_redis: RedisServer) -> None:
    with asking(private_redis.url) as ask, connect(private_redis.url) as client:
        for each in ("evicted", "altered", "refreshed"):
            keep(ask, asked(each), 1)
        remove(client, [asked("evicted").fingerprint])
        client.setrange(keys.USUAL.cache_entry(asked("altered").fingerprint), 30, "???")
        assert "evicted or removed" in why(ask, client, asked("evicted"), "1")
        assert "and refused" in why(ask, client, asked("altered"), "2")
        assert "--refresh" in why(ask, client, asked("refreshed"), "3", refresh=True)
        ask.start(asked("expired"), CacheDefinition(ttl=0.001)).claim().keep([Message(1)], PARENT, seconds=1.0)
        eventually(lambda: ask.cache.stats.kept == 4, "the entry")
        assert "the same result was kept" in why(ask, client, asked("expired"), "4")


def test_what_is_not_noted_is_said_with_what_is(private_redis: RedisServer) -> None:
    with asking(private_redis.url) as ask, connect(private_redis.url) as client:
        with pytest.raises(ConfigError, match="no cache misses are recorded for run 'run-1'"):
            explain(client, "run-1", "detect", "0")
        why(ask, client, asked(1), "0")
        assert explain(client, "run-", "detect", "0") == explain(client, "run-1", "detect", "0")
        client.zadd(keys.USUAL.cache_runs, {"run-2": time.time()})
        with pytest.raises(ConfigError, match=r"'run' begins the ids of 2 runs \(run-1, run-2\); write more of it"):
            explain(client, "run", "detect", "0")
        with pytest.raises(ConfigError, match="node 'detekt'; did you mean 'detect'"):
            explain(client, "run-1", "detekt", "0")
        with pytest.raises(ConfigError, match="no cache miss is recorded for message '7'"):
            explain(client, "run-1", "detect", "7")
        client.hset(keys.USUAL.cache_asked("run-1"), "detect/0", b"?")
        with pytest.raises(ConfigError, match="cannot be read"):
            explain(client, "run-1", "detect", "0")
        assert 0 < client.pttl(keys.USUAL.cache_asked("run-1")) <= keys.CACHE_ASKED_TTL
