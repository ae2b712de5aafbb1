"""The server of metrics: nobody who asks holds up the others, and what requests do wrong is not its log's business."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest

from celerypipe.errors import RedisUnavailable
from celerypipe.redis.url import read_address
from celerypipe.web import server
from celerypipe.web.server import Lookout, MetricsServer
from tests.servers import PATIENCE, eventually


@pytest.fixture
def served(redis_url: str) -> Iterator[MetricsServer]:
    running = MetricsServer("127.0.0.1", 0, Lookout(read_address(redis_url), None))
    running.start()
    yield running
    running.close()


def test_all_pages_can_be_asked_for_their_head(served: MetricsServer) -> None:
    with httpx.Client(base_url=served.url) as client:
        for path in ("/metrics", "/queues", "/queues/none", "/healthz"):
            answer = client.head(path)
            assert (answer.status_code, answer.content) == (200, b""), path
            assert client.post(path).status_code == 405, path
        assert client.head("/nothing").status_code == 404


def test_who_leaves_amid_a_request_is_not_told_of(served: MetricsServer, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    for _ in range(5):
        leaving = socket.create_connection(("127.0.0.1", served.port))
        leaving.send(b"GET /metr")
        eventually(lambda: set(threading.enumerate()) - before, "a thread for it")
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.close()
        eventually(lambda: not set(threading.enumerate()) - before, "its end")
    assert capsys.readouterr().err == ""


def test_who_asks_while_redis_is_frozen_does_not_wait_for_all_who_asked_before(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, times, thawed = [], itertools.count(1.0), threading.Event()

    def frozen(*_: object) -> None:
        looks.append(threading.get_ident())
        assert thawed.wait(PATIENCE)
        raise RedisUnavailable("frozen")

    monkeypatch.setattr(server, "read_overview", frozen)
    monkeypatch.setattr(server, "time", SimpleNamespace(monotonic=lambda: next(times)))
    said: list[str] = []
    lookout = Lookout(read_address(redis_url), None, said.append)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(lookout.glance)
        eventually(lambda: looks, "the first look")
        others = [pool.submit(lookout.glance) for _ in range(8)]
        eventually(lambda: repr(times) == "count(11.0)", "all of them asking")  # and one began to look
        thawed.set()
        assert [each.result(PATIENCE) for each in (first, *others)] == [None] * 9
    assert len(looks) == 2, "one for the first, and one for all who came meanwhile"
    assert said == ["frozen; trying again with each request"]
