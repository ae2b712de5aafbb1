"""Whoever can write to the cache: what is cut off, altered, moved or planted is a miss, and is said once."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celerypipe import codec
from celerypipe.cache.asked import Asked
from celerypipe.cache.entry import Bulk, Head, opened, sealed
from celerypipe.cache.kept import Form, kept
from celerypipe.cache.seal import Refused, Seal
from celerypipe.cache.store import OVERHEAD
from celerypipe.errors import CodecError
from celerypipe.message.message import Message
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from celerypipe.redis.signing import Keyring
from tests.runs.asking import PARENT, asked, asking, keep
from tests.servers import RedisServer, eventually

OURS, THEIRS = "our key of many bytes", "their key of many bytes"
Harm = Callable[[Client, str], None]


def entry(what: Asked) -> str:
    return keys.USUAL.cache_entry(what.fingerprint)


def cut(client: Client, name: str) -> None:
    data = client.get(name)
    assert isinstance(data, bytes)
    client.set(name, data[: len(data) // 2])


def flip(client: Client, name: str) -> None:
    data = client.get(name)
    assert isinstance(data, bytes)
    client.setrange(name, len(data) - 30, bytes([data[-30] ^ 1]))


def grow(client: Client, name: str) -> None:
    client.append(name, b"x")


def swell(client: Client, name: str) -> None:
    client.setrange(name, 64 * 1024 * 1024, b"x")


def empty(client: Client, name: str) -> None:
    client.set(name, b"")


def delete(client: Client, name: str) -> None:
    client.delete(name)


def exchange(client: Client, name: str) -> None:
    client.delete(name)
    client.rpush(name, "a list")


def renumber(client: Client, name: str) -> None:
    client.setrange(name, 2, b"\x63")


HARMS = [cut, flip, grow, swell, empty, delete, exchange, renumber]


@pytest.mark.parametrize("signed", ["", OURS], ids=["checked", "signed"])
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: str(harm.__name__))
def test_an_entry_that_was_harmed_is_a_miss_and_is_made_anew(
    redis_url: str, redis_client: Client, harm: Harm, signed: str
) -> None:
    what = asked(("harmed", harm.__name__, signed))
    with asking(redis_url, keys=signed) as ask:
        for _ in range(2):
            keep(ask, what, {"n": 1})
            harm(redis_client, entry(what))
        if harm is exchange:  # Redis itself refuses to read and to write there
            ask.start(what).claim().drop()
            redis_client.delete(entry(what))
        keep(ask, what, {"n": 2})
        assert ask.payload(what) == {"n": 2}
        assert len(ask.said) == (0 if harm in (empty, delete) else 1)


@pytest.mark.parametrize("size", [100_000, 1_000_000], ids=["near", "far"])
@pytest.mark.parametrize("harm", HARMS[:-1], ids=lambda harm: str(harm.__name__))
def test_large_bytes_that_were_harmed_are_a_miss_and_are_made_anew(
    redis_url: str, redis_client: Client, harm: Harm, size: int
) -> None:
    what, array = asked(("blob", harm.__name__, size)), np.frombuffer(os.urandom(8 * size), np.float64)
    with asking(redis_url) as ask:
        keep(ask, what, array)
        data = redis_client.get(entry(what))
        assert isinstance(data, bytes)
        blob = opened(Seal(None), what.fingerprint, data).head.blob
        assert blob is not None
        harm(redis_client, keys.USUAL.cache_blob(blob.digest, 0))
        if harm is exchange:
            ask.start(what).claim().drop()
            redis_client.delete(keys.USUAL.cache_blob(blob.digest, 0))
        keep(ask, what, array)
        assert ask.payload(what).tobytes() == array.tobytes()
        if harm not in (empty, delete, exchange):  # what is not there was pushed out, and nobody has to know
            assert len(ask.said) == 1


def test_an_entry_of_another_question_is_a_miss(redis_url: str, redis_client: Client) -> None:
    for signed in ("", OURS):
        here, there = asked(("here", signed)), asked(("there", signed))
        with asking(redis_url, keys=signed) as ask:
            keep(ask, here, "of here")
            redis_client.copy(entry(here), entry(there))
            keep(ask, there, "of there")
            assert (ask.payload(here), ask.payload(there)) == ("of here", "of there")
            assert len(ask.said) == 1
            assert "of another question" in ask.said[0]


def test_with_keys_nothing_counts_that_others_kept(redis_url: str) -> None:
    said = {"": "CELERYPIPE_KEYS is set here", THEIRS: "not known here"}
    for stranger, why in said.items():
        what = [asked((stranger, number)) for number in range(3)]
        with asking(redis_url, keys=stranger) as strange:
            for each in what:
                keep(strange, each, "planted")
        with asking(redis_url, keys=OURS) as ask:
            for each in what:
                keep(ask, each, "ours")
            assert [ask.payload(each) for each in what] == ["ours"] * 3
            assert ask.cache.stats.refused == 3
            assert len(ask.said) == 1
            assert why in ask.said[0]
        with asking(redis_url, keys=f"{THEIRS},{OURS}") as both:
            assert both.payload(what[0]) == "ours"
    with asking(redis_url) as keyless:
        assert keyless.compute(asked(("", 0)), "made anew")
        assert "here are no keys" in keyless.said[0]


def test_a_signed_entry_that_was_over_stays_over(redis_url: str, redis_client: Client) -> None:
    """Who writes to Redis may keep an old entry and put it back: its end is among what is signed."""
    seal, what = Seal(Keyring.parse(OURS)), asked("put back")
    old = sealed(seal, what.fingerprint, what.to_dict(), kept([Message("old")], PARENT), 1.0, 0.001)
    redis_client.set(entry(what), old.data)
    with asking(redis_url, keys=OURS) as ask:
        ask.start(what).claim().drop()


class Forged:
    """Entries that say what no honest one says, with a checksum that is right."""

    def __init__(self, redis_client: Client) -> None:
        self._client = redis_client

    def plant(self, what: Asked, head: Head, outputs: bytes = b"", asked_bytes: bytes | None = None) -> None:
        packed = msgspec.msgpack.encode(head)
        question = codec.encode_value(what.to_dict()) if asked_bytes is None else asked_bytes
        sizes = len(packed).to_bytes(4, "little") + len(question).to_bytes(4, "little")
        data = b"cr\x01\x00" + sizes + packed + question + outputs
        self._client.set(entry(what), data + Seal(None).of(what.fingerprint, data))


@pytest.fixture
def forged(redis_client: Client) -> Iterator[Forged]:
    """Plants entries in the session's Redis."""
    return Forged(redis_client)


def test_forged_entries_are_misses_and_take_no_memory(redis_url: str, forged: Forged) -> None:
    plain, one = Form(True, [], True, True, False), kept([Message(1)], PARENT)
    now = 2e9
    heads = [
        (Head(0.0, 0, None, 0, Bulk("0" * 64, 1 << 62, False), None, [plain]), b""),
        (Head(0.0, 0, None, 0, Bulk("0" * 64, 60 << 30, False), None, [plain]), b""),
        (Head(0.0, 0, None, 0, Bulk("../../etc", 10, False), None, [plain]), b""),
        (Head(0.0, 0, None, 0, None, None, [plain] * 1000), one.head),
        (Head(0.0, 0, None, 0, None, None, []), one.head),
        (Head(0.0, 0, None, 0, None, None, [plain]), b"cp\x01\x00" + b"\xff" * 40),
        (Head(0.0, 0, None, 0, None, None, [plain]), codec.encode_value(1)),
        (Head(now * 2, 0, None, 0, None, None, [plain]), one.head),
    ]
    with asking(redis_url) as ask:
        ask.start(asked("first")).claim().drop()
        tracemalloc.start()
        for number, (head, outputs) in enumerate(heads):
            forged.plant(asked(("forged", number)), head, outputs)
            ask.start(asked(("forged", number))).claim().drop()
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
        tracemalloc.stop()


ENTRY = sealed(Seal(None), "f", asked().to_dict(), kept([Message(np.arange(5)), Message("x")], PARENT), 1.0, 9.0)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0, len(ENTRY.data) - 1), value=st.integers(0, 255), end=st.integers(0, len(ENTRY.data)))
def test_any_other_bytes_are_refused(place: int, value: int, end: int) -> None:
    data = bytearray(ENTRY.data)
    data[place] = value
    for harmed in (bytes(data), ENTRY.data[:end]):
        if harmed != ENTRY.data:
            with pytest.raises(Refused):
                opened(Seal(None), "f", harmed)
    with pytest.raises(Refused):
        opened(Seal(None), "g", ENTRY.data)


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200), head=st.binary(max_size=60))
def test_bytes_that_are_sealed_and_senseless_raise_codec_errors_only(body: bytes, head: bytes) -> None:
    for first in (head, msgspec.msgpack.encode(ENTRY.head)):
        data = b"cr\x01\x00" + len(first).to_bytes(4, "little") + (0).to_bytes(4, "little") + first + body
        with suppress(CodecError):
            opened(Seal(None), "f", data + Seal(None).of("f", data)).messages(body)


def test_what_it_takes_in_redis_is_counted_honestly(private_redis: RedisServer) -> None:
    what = [asked(("honest", number)) for number in range(200)]
    with connect(private_redis.url) as client:
        with asking(private_redis.url) as ask:
            ask.compute(asked("first"), os.urandom(1000))
            eventually(lambda: ask.cache.stats.kept == 1, "the first, which costs Redis 7 and Valkey 400 KB besides")
            before = client.info("memory")["used_memory"]
            for each in what:
                ask.compute(each, os.urandom(1000))
            eventually(lambda: ask.cache.stats.kept == 1 + len(what), "the entries")
            sizes = sum(int(client.hget(keys.USUAL.cache_sizes, f"e:{each.fingerprint}") or 0) for each in what)
        assert sizes > 200 * (1000 + OVERHEAD)
        # What other connections hold meanwhile counts as well, and goes with them.
        eventually(lambda: client.info("memory")["used_memory"] - before < 1.3 * sizes, "what it takes by itself")
