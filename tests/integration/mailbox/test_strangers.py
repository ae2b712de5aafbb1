"""What a stranger wrote into celerypipe's keys: it is passed over, and takes nobody down."""

from __future__ import annotations

import json
from queue import SimpleQueue

import pytest

from celerypipe import Message, Runner
from celerypipe.mailbox import hints
from celerypipe.mailbox.deaths import Death, as_text, count_death, death_of, deaths_so_far
from celerypipe.mailbox.presence import read_presences
from celerypipe.mailbox.protocol import SPOKEN
from celerypipe.mailbox.status import read_status
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.runs.traces import run_of
from tests.servers import RedisServer, StartWorker, eventually
from tests.servers.command import celerypipe
from tests.servers.extent import LONG

GARBAGE = [b"", b"\xff\xfe", b"not json", b"5", b"null", b'"text"', b"[[", b"[" * 100_000, b"{}", b'{"id": 7}', b"NaN"]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_presence_that_no_worker_wrote_is_nobody(redis_client: Client, garbage: bytes) -> None:
    before = {record["id"] for record in read_presences(redis_client)}
    redis_client.zadd(keys.USUAL.workers, {name: redis_client.time()[0] * 1000 for name in ("stranger", b"\xff\xfe")})
    redis_client.set(keys.USUAL.presence("stranger"), garbage, px=5000)
    try:
        assert {record["id"] for record in read_presences(redis_client)} <= before
    finally:
        redis_client.zrem(keys.USUAL.workers, "stranger", b"\xff\xfe")
        redis_client.delete(keys.USUAL.presence("stranger"))


@pytest.mark.parametrize(
    "shape",
    [
        {"slots": "many"},
        {"slots": 10**9},
        {"queues": [1]},
        {"queues": ["\ud800"]},
        {"name": 5},
        {"marks": []},
        {"marks": {"m": {"mark": "m", "arguments": 3}}},
        {"pid": None},
        {"host": {}},
        {"clock": "late"},
        {"started": "early"},
        {"keys": 5},
        {"protocol": "1"},
        {"protocol": [1]},
        {"host": {}, "protocol": [9, 9]},
    ],
)
def test_a_presence_that_lies_about_its_shape_is_nobody(redis_client: Client, shape: dict[str, object]) -> None:
    fine: dict[str, object] = {
        "id": "s.1.a",
        "host": "s",
        "pid": 1,
        "pool": "solo",
        "slots": 1,
        "queues": [],
        "marks": {},
        "versions": {},
        "protocol": list(SPOKEN),
    }
    redis_client.set(keys.USUAL.heartbeat("s", "a"), " 1 ", px=60_000)
    try:
        for record, there in ((fine, True), ({**fine, **shape}, False)):
            redis_client.zadd(keys.USUAL.workers, {"s.1.a": redis_client.time()[0] * 1000})
            redis_client.set(keys.USUAL.presence("s.1.a"), json.dumps(record), px=60_000)
            assert ("s.1.a" in {found["id"] for found in read_presences(redis_client)}) is there
        redis_client.set(keys.USUAL.presence("s.1.a"), json.dumps(fine), px=60_000)
        redis_client.set(keys.USUAL.heartbeat("s", "a"), " 11 ", px=60_000)
        assert "s.1.a" not in {found["id"] for found in read_presences(redis_client)}  # nobody says that it lives
    finally:
        redis_client.zrem(keys.USUAL.workers, "s.1.a")
        redis_client.delete(keys.USUAL.presence("s.1.a"), keys.USUAL.heartbeat("s", "a"))


@pytest.mark.parametrize(
    "about",
    [
        *(GARBAGE if LONG else GARBAGE[:2]),
        b'{"pipeline": "p", "host": "h", "pid": 1, "started": 1, "nodes": {"up": {}}}',
        b'{"pipeline": "[/p]\\u001b[31m", "host": "[/h]", "pid": 1, "started": 1, '
        b'"nodes": {"up": {"queue": "[/q]", "mark": "m"}}}',
    ],
)
def test_a_run_that_no_runner_wrote_hides_no_other(private_redis: RedisServer, about: bytes) -> None:
    with connect(private_redis.url) as client:
        client.zadd(keys.USUAL.runs, {"stranger": 1e15, b"\xff\xfe": 1e15})
        client.set(keys.USUAL.about("stranger"), about)
        stream = keys.USUAL.mailbox("stranger", "up")
        client.xgroup_create(stream, keys.GROUP, "0", mkstream=True)
        client.xadd(stream, {"what": "ever"})
        client.xreadgroup(keys.GROUP, "nobody", {stream: ">"})
        client.set(f"{keys.USUAL.bell('stranger', 'up')}0", "nobody")
        assert len(read_status(client).runs) <= 1
    done = celerypipe("status", "--redis", private_redis.url)
    assert done.returncode == 0, done.stderr
    assert "\x1b[31m" not in done.stdout
    assert celerypipe("cancel", "stranger", "--redis", private_redis.url).returncode in (0, 2)


@pytest.mark.parametrize("garbage", [*GARBAGE, b'["node", 5]', b'{"node": 5}'])
def test_a_sign_that_no_activation_wrote_says_nothing(redis_client: Client, garbage: bytes) -> None:
    for key in (keys.USUAL.anew("stranger"), keys.USUAL.held("stranger")):
        redis_client.set(key, garbage, px=5000)
    assert hints.anew(redis_client, "stranger", "node") == []
    assert hints.held(redis_client, "stranger") == {}


@pytest.mark.parametrize("garbage", [*GARBAGE, b'[["nowhere", {"status": 1}]]', b'[["a.1.b", {"status": "x"}]]'])
def test_a_death_that_nobody_saw_names_nobody(redis_client: Client, garbage: bytes) -> None:
    attempts, holder = keys.USUAL.attempts("stranger", "node"), "host.7.t-ab-cd.0"
    redis_client.set(keys.USUAL.death("host.7.ab"), garbage, px=5000)
    redis_client.hset(attempts, "deaths 3", garbage)
    try:
        death = death_of(redis_client, holder) or Death(None)
        found = deaths_so_far(redis_client, attempts, "3", holder, death)
        assert found[-1][0] == "host.7.ab"
        assert "process 7" in as_text(found) or "7 on host" in as_text(found)
        assert len(deaths_so_far(redis_client, attempts, "3", holder, death)) == len(found) + 1
        assert 0 < redis_client.pttl(attempts) <= keys.DATA_TTL
    finally:
        redis_client.delete(attempts, keys.USUAL.death("host.7.ab"))


@pytest.mark.parametrize("garbage", [*GARBAGE, b"9223372036854775807", None])
def test_deaths_that_nobody_counted_keep_no_message_from_being_run(redis_client: Client, garbage: bytes | None) -> None:
    attempts = keys.USUAL.attempts("stranger", "node")
    if garbage is None:
        redis_client.set(attempts, "of another type", px=5000)
    else:
        redis_client.hset(attempts, "3", garbage)
    try:
        assert count_death(redis_client, attempts, "3") == (6 if garbage == b"5" else 1)
        assert count_death(redis_client, attempts, "4") == 1
        assert count_death(redis_client, attempts, "3") == (7 if garbage == b"5" else 2)
        assert 0 < redis_client.pttl(attempts) <= keys.DATA_TTL
    finally:
        redis_client.delete(attempts)


def test_deaths_of_many_messages_fill_no_memory(redis_client: Client) -> None:
    attempts = keys.USUAL.attempts("many", "node")
    redis_client.hset(attempts, mapping={str(number): 1 for number in range(keys.ATTEMPTS_MOST)})
    assert count_death(redis_client, attempts, "0") == 2
    assert count_death(redis_client, attempts, "new") == 1
    assert redis_client.hlen(attempts) == 1
    redis_client.delete(attempts)


@pytest.mark.timeout(90)
def test_what_takes_the_place_of_a_key_ends_no_run(
    shared_worker: StartWorker, redis_url: str, redis_client: Client
) -> None:
    """Something of another type: whatever is done with it is refused, for as long as it is there."""
    shared_worker("mistyped", pool="solo", concurrency=1, config=CONFIG)
    given: SimpleQueue[Message | None] = SimpleQueue()
    runner = Runner(redis_url)
    pipeline = warped("tests.nodes.remote.Echo", "mistyped", limits={"linger": 0.0})
    reading = Reading(runner.stream(pipeline, iter(given.get, None)))
    given.put(Message(0))
    reading.wait_for(1)
    run, names = run_of(runner), keys.USUAL
    bell = f"{names.bell(run, 'there')}0"
    harmed = [bell, names.mailbox(run, "there"), names.node(run, "there"), names.reply(run), names.run(run)]
    for number, name in enumerate(harmed, 1):
        eventually(lambda: not redis_client.exists(bell), "an end of the activation")
        with redis_client.pipeline(transaction=True) as together:
            together.delete(name)
            together.sadd(name, "of another type")
            together.execute()
        given.put(Message(number))
        reading.wait_for(number + 1)
    given.put(None)
    assert reading.payloads() == list(range(len(harmed) + 1))
