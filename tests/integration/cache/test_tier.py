"""The second tier: results that outlive Redis, on a disk or elsewhere, and a Redis of the cache's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from celerypipe.cache.asked import Asked
from celerypipe.definition.cache import CacheDefinition
from celerypipe.message.message import Message
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from tests.runs.asking import PARENT, asked, asking, keep
from tests.servers import eventually

OURS = "our key of many bytes"


def entry(what: Asked) -> str:
    return keys.USUAL.cache_entry(what.fingerprint)


def test_results_outlive_redis_on_a_disk(redis_url: str, redis_client: Client, tmp_path: Path) -> None:
    second, array = tmp_path.as_uri(), np.arange(100_000.0)
    for signed in ("", OURS):
        small, large = asked(("small", signed)), asked(("large", signed))
        with asking(redis_url, keys=signed, second=second) as ask:
            keep(ask, small, (1, None))
            keep(ask, large, array)
        for each in (small, large):
            redis_client.delete(entry(each))
        with asking(redis_url, keys=signed, second=second) as ask:
            assert ask.payload(small) == (1, None)
            assert (ask.payload(large) == array).all()
            eventually(lambda ask=ask: ask.cache.stats.kept == 2, "their return to Redis")  # type: ignore[misc]
        with asking(redis_url, keys=signed) as ask:
            assert ask.payload(small) == (1, None)
            assert (ask.payload(large) == array).all()


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_without_redis_the_second_tier_is_the_cache(tmp_path: Path, scheme: str) -> None:
    second = tmp_path.as_uri() if scheme == "file" else "memory://celerypipe-tests"
    with asking(None, second=second) as ask:
        first = ask.start(asked("alone")).claim()
        waits = ask.start(asked("alone"))
        first.keep([Message([1.0])], PARENT, seconds=1.0)
        assert waits.found().outputs(PARENT)[0].payload == [1.0]
        ask.start(asked("nothing of it")).claim().drop()
    with asking(None, second=second) as ask:
        assert ask.payload(asked("alone")) == [1.0]
        assert ask.ask(asked("nothing of it")) is not None
        assert ask.said == []


def test_what_was_harmed_in_the_second_tier_is_a_miss(redis_url: str, redis_client: Client, tmp_path: Path) -> None:
    array = np.arange(50_000.0)
    what = [asked(("tier", number)) for number in range(3)]
    with asking(redis_url, second=tmp_path.as_uri()) as ask:
        for each in what:
            keep(ask, each, array)
    for each in what:
        redis_client.delete(entry(each))
    files = {path.name: path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(files) == 4
    files[what[0].fingerprint].write_bytes(b"cr")
    files[what[1].fingerprint].write_bytes(files[what[2].fingerprint].read_bytes())
    with asking(redis_url, second=tmp_path.as_uri()) as ask:
        for each in what[:2]:
            ask.start(each).claim().drop()
        assert (ask.payload(what[2]) == array).all()
        assert len(ask.said) == 1
        eventually(lambda: ask.cache.stats.kept == 1, "its return to Redis")
        redis_client.delete(entry(what[2]))
        [blob] = [path for path in files.values() if path.stat().st_size == array.nbytes]
        blob.write_bytes(b"x" * array.nbytes)
        ask.start(what[2]).claim().drop()


def test_a_second_tier_that_does_not_work_fails_nobody(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for second in (f"{(tmp_path / 'file').as_uri()}/below", "nonsense://x"):
        with asking(redis_url, second=second) as ask:
            for number in range(5):
                keep(ask, asked((second, number)), number)
                assert ask.payload(asked((second, number))) == number
        assert len([text for text in ask.said if "second place" in text]) <= 2
        assert ask.said


def test_read_only_writes_to_no_tier(redis_url: str, redis_client: Client, tmp_path: Path) -> None:
    with asking(redis_url, second=tmp_path.as_uri()) as ask:
        keep(ask, asked("promoted"), 1)
    redis_client.delete(entry(asked("promoted")))
    with asking(redis_url, second=tmp_path.as_uri()) as ask:
        policy = CacheDefinition(read_only=True)
        assert ask.payload(asked("promoted"), policy) == 1
        assert not redis_client.exists(entry(asked("promoted")))
        ask.start(asked("unknown"), policy).claim().keep([Message(1)], PARENT, seconds=1.0)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_redis_of_its_own(redis_url: str, redis_client: Client) -> None:
    second = redis_url.replace("db=0", "db=3")
    with asking(redis_url, second=second) as ask:
        keep(ask, asked("of its own"), 1)
        assert not redis_client.exists(entry(asked("of its own")))
    with asking(None, second=second) as ask:
        assert ask.payload(asked("of its own")) == 1
