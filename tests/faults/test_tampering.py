"""A stranger in the same Redis who never rests: with keys every message still comes out once, in order, as it was."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import redis

from celerypipe import Message, Runner
from celerypipe.mailbox.wire import ENTRY
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, connect
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import chain
from tests.runs.reading import Reading
from tests.runs.traces import run_of
from tests.servers import StartWorker
from tests.servers.extent import LONG

COUNT = 6000 if LONG else 400
#: What the stranger does before he leaves, so that the run can end.
DEEDS = 3000 if LONG else 120
KEYS = "a key that the stranger does not know"
NODES = ("n0", "n1", "n2")


class Stranger(threading.Thread):
    """Takes messages and results away, and puts altered, moved and repeated ones in their place."""

    def __init__(self, client: Client, run: str) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.run_id = run
        self.done = dict.fromkeys((self.alter, self.renumber, self.move, self.repeat, self.answer, self.spoil), 0)
        self.left = threading.Event()
        self._random = random.Random(4)  # noqa: S311  # the same deeds each time
        self.start()

    def run(self) -> None:
        while sum(self.done.values()) < DEEDS and not self.left.wait(0.005):
            deed = self._random.choice(list(self.done))
            with suppress(redis.ResponseError, LookupError):  # what he wanted is gone
                deed()
                self.done[deed] += 1

    def _message(self) -> tuple[str, bytes, bytes]:
        stream = keys.USUAL.mailbox(self.run_id, self._random.choice(NODES))
        entry_id, fields = self._random.choice(self.client.xrange(stream))
        return stream, entry_id, fields[b"m"]

    def _put(self, stream: str, name: str, raw: bytes) -> None:
        self.client.xadd(stream, {name: raw}, nomkstream=True)

    def alter(self) -> None:
        stream, entry_id, raw = self._message()
        place = self._random.randrange(len(raw))
        self.client.xdel(stream, entry_id)
        self._put(stream, "m", raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])

    def renumber(self) -> None:
        stream, _, raw = self._message()
        self._put(stream, "m", ENTRY.pack(self._random.randrange(COUNT), 0, False, 0) + raw[ENTRY.size :])

    def move(self) -> None:
        _, entry_id, raw = self._message()
        stream, *_ = self._message()
        self.client.xdel(stream, entry_id)
        self._put(stream, "m", raw)

    def repeat(self) -> None:
        stream, _, raw = self._message()
        self._put(stream, "m", raw)

    def answer(self) -> None:
        """Pass a result off as that of another node, and repeat it as it was."""
        stream = keys.USUAL.reply(self.run_id)
        found: Any = self.client.call("XRANGE", stream, "-", "+")
        made_up = [b"n", b"n0", b"w", b"host.1.me.0", b"r", os.urandom(80)]
        fields = next((fields for _, fields in found if len(fields) > 2), made_up)
        self.client.call("XADD", stream, "NOMKSTREAM", "*", *fields)
        self.client.call("XADD", stream, "NOMKSTREAM", "*", "n", self._random.choice(NODES), *fields[2:])

    def spoil(self) -> None:
        names = list(self.client.scan_iter(f"{keys.USUAL.blob(self.run_id, '')}*", count=1000))
        name = self._random.choice(names)
        self.client.setrange(name, self._random.randrange(100), os.urandom(8))


def messages() -> Iterator[Message]:
    for number in range(COUNT):
        # Every tenth payload is large: it lies apart.
        yield Message(np.full(100_000, number % 100, np.uint8) if number % 10 == 0 else np.full(4, number % 100))


@pytest.mark.timeout(600 if LONG else 120)
def test_a_stranger_who_never_rests_changes_nothing(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERYPIPE_KEYS", KEYS)
    start_worker("tampered", pool="prefork", concurrency=2, config=CONFIG)
    # A payload that was altered three times is a failure of its message.
    slow = {"configuration": {"delay": 0.004}, "retries": 5}
    pipeline = chain("tampered", "Echo", "Large", "Echo", n0=slow, n1={"retries": 5}, n2=slow)
    runner = Runner(redis_url, shared_memory=False)
    reading = Reading(runner.stream(pipeline, messages()))
    reading.wait_for(5)
    with connect(redis_url) as client:
        stranger = Stranger(client, run_of(runner))
        reading.join(500 if LONG else 100)
        stranger.left.set()
        stranger.join()
    payloads = reading.payloads()
    assert [int(payload.max()) for payload in payloads] == [2 * (number % 100) for number in range(COUNT)]
    assert all(payload.min() == payload.max() for payload in payloads)
    assert runner.report is not None
    assert {"message", "result"} <= runner.report.refused.keys()
    assert sum(stranger.done.values()) > 20, stranger.done
