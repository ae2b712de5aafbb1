"""What a stranger wrote into celerypipe's keys: it is passed over, and takes nobody down."""

from __future__ import annotations

import json

import pytest

from celerypipe import keys, signs
from celerypipe.connection import Client
from celerypipe.presence import read_presences

GARBAGE = [b"", b"\xff\xfe", b"not json", b"5", b"null", b'"text"', b"[[", b"[" * 100_000, b"{}", b'{"id": 7}', b"NaN"]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_presence_that_no_worker_wrote_is_nobody(redis_client: Client, garbage: bytes) -> None:
    before = {record["id"] for record in read_presences(redis_client)}
    redis_client.zadd(keys.WORKERS, {"stranger": redis_client.time()[0] * 1000})
    redis_client.set(keys.presence("stranger"), garbage, px=5000)
    try:
        assert {record["id"] for record in read_presences(redis_client)} <= before
    finally:
        redis_client.zrem(keys.WORKERS, "stranger")
        redis_client.delete(keys.presence("stranger"))


@pytest.mark.parametrize("shape", [{"slots": "many"}, {"queues": [1]}, {"marks": []}, {"pid": None}, {"host": {}}])
def test_a_presence_that_lies_about_its_shape_is_nobody(redis_client: Client, shape: dict[str, object]) -> None:
    fine = {"id": "s", "host": "h", "pid": 1, "pool": "solo", "slots": 1, "queues": [], "marks": {}, "versions": {}}
    try:
        for record, there in ((fine, True), ({**fine, **shape}, False)):
            redis_client.zadd(keys.WORKERS, {"s": redis_client.time()[0] * 1000})
            redis_client.set(keys.presence("s"), json.dumps(record), px=5000)
            assert (record in read_presences(redis_client)) is there
    finally:
        redis_client.zrem(keys.WORKERS, "s")
        redis_client.delete(keys.presence("s"))


@pytest.mark.parametrize("garbage", [*GARBAGE, b'["node", 5]', b'{"node": 5}'])
def test_a_sign_that_no_activation_wrote_says_nothing(redis_client: Client, garbage: bytes) -> None:
    for key in (keys.together("stranger"), keys.held("stranger")):
        redis_client.set(key, garbage, px=5000)
    assert signs.together(redis_client, "stranger", "node") == []
    assert signs.held(redis_client, "stranger") == {}
