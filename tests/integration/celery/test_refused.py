"""What strangers push onto a queue's list: no worker ends, nothing vanishes, tasks behind it are served."""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from typing import Any

import pytest

from celerypipe import Message, Runner
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.servers import StartWorker, eventually

NUMBERS = itertools.count()


def task(**changes: Any) -> bytes:
    """A Celery message as kombu writes it, with some of it changed; None: left out."""
    number = f"strange-{next(NUMBERS)}"
    properties = {"delivery_tag": number, "delivery_info": {"exchange": "", "routing_key": "q"}, "body_encoding": None}
    whole = {"body": "[[], {}, {}]", "headers": {"task": "tests.nodes.remote.Echo", "id": number, "lang": "py"}}
    whole |= {"content-type": "application/json", "content-encoding": "utf-8", "properties": properties}
    return json.dumps({key: value for key, value in {**whole, **changes}.items() if value is not None}).encode()


#: A body that somebody packed: small here, a megabyte there.
PACKED = base64.b64encode(zlib.compress(bytes(1 << 20))).decode()
#: Kept apart, each for a reason of its own.
STRANGE = [
    b"hello",
    b"\xff\xfe\x00",
    b"",
    b"42",
    b"[]",
    b"{}",
    b"[" * 100_000,
    task(properties=None),
    task(properties=[]),
    task(properties={"delivery_tag": "tag"}),
    task(properties={"delivery_tag": ["a", "list"], "delivery_info": {"exchange": "", "routing_key": "q"}}),
    task(headers={"task": ["a", "list"], "id": "own-3"}),
    task(headers={"task": "tests.nodes.remote.Echo"}),
    task(body=7),
    task(body=PACKED, headers={"task": "tests.nodes.remote.Echo", "id": "own-7", "compression": "application/x-gzip"}),
]
#: Tasks that Celery itself drops, or lets fail, and says so.
DROPPED = [
    task(**{"content-encoding": "no-such-encoding"}),
    task(**{"content-type": "application/x-python-serialize"}),
    task(headers={"task": "no.such.task", "id": "own-5"}),
    task(body="no json"),
    task(headers={"task": "tests.nodes.remote.Echo", "id": "own-4", "timelimit": 7}),
    task(headers={"task": "tests.nodes.remote.Echo", "id": "own-9", "timelimit": [None, "late"]}),
]


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 1), ("threads", 1)])
def test_what_is_no_task_is_kept_apart_and_the_worker_goes_on(
    start_worker: StartWorker, redis_url: str, redis_client: Client, pool: str, slots: int
) -> None:
    queue = f"strange-{pool}"
    worker = start_worker(queue, pool=pool, concurrency=slots, config=CONFIG)
    redis_client.rpush(queue, *reversed(STRANGE), *DROPPED)
    redis_client.publish("/0.celery.pidbox", json.dumps(["no command"]))
    redis_client.publish("/0.celery.pidbox", json.dumps({"properties": 3}))
    redis_client.publish("/0.celery.pidbox", task(headers={"compression": "zlib"}))

    kept = keys.USUAL.refused(queue)
    eventually(lambda: redis_client.llen(kept) == len(STRANGE) or worker.process.poll() is not None, "all of them kept")
    assert redis_client.lrange(kept, 0, -1) == list(reversed(STRANGE))
    assert 0 < redis_client.ttl(kept) <= keys.REFUSED_TTL

    def unacked() -> list[bytes]:
        return [
            each for each in redis_client.hvals("unacked") if queue.encode() in each
        ]  # others have theirs there too

    eventually(lambda: not unacked(), "none of them left to come a second time")
    pipeline = warped("tests.nodes.remote.Echo", queue)
    assert [each.payload for each in Runner(redis_url).stream(pipeline, map(Message, range(5)))] == list(range(5))
    text = worker.text()
    assert "an item of 5 bytes is no task (JSONDecodeError" in text
    assert "it is packed ('application/x-gzip')" in text
    assert text.count("is kept in the list") == len(STRANGE), "one line each"
    assert "Connection to broker lost" not in text
    assert worker.process.poll() is None


def test_no_more_than_a_hundred_are_kept_and_of_each_no_more_than_a_megabyte(
    start_worker: StartWorker, redis_client: Client
) -> None:
    worker = start_worker("heap", pool="solo", config=CONFIG)
    redis_client.rpush("heap", b"x" * (3 * 1024 * 1024), *(b"junk %d" % number for number in range(120)))
    eventually(lambda: worker.text().count("is kept in the list") == 121, "a line for each")
    kept = keys.USUAL.refused("heap")
    eventually(lambda: len(redis_client.lindex(kept, 0) or b"") == 1024 * 1024, "the large one, popped last, cut")
    assert redis_client.llen(kept) == keys.REFUSED_MOST
