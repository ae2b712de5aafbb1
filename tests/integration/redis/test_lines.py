"""A line to Redis that was idle: whoever ended it meanwhile, the next command takes a new one, and is done once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from celerypipe.celery.application import make_app
from celerypipe.redis import line
from celerypipe.redis.connection import connect
from tests.servers import RedisServer, eventually
from tests.servers.proxy import Ending, Proxy, close, forget, reset


@pytest.fixture
def proxy(private_redis: RedisServer) -> Iterator[Proxy]:
    with Proxy(private_redis.folder / "redis.sock") as found:
        yield found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket gives up after one second what else takes five."""
    monkeypatch.setitem(line.KEEP_ALIVE, socket.TCP_KEEPIDLE, 1)
    monkeypatch.setitem(line.KEEP_ALIVE, socket.TCP_USER_TIMEOUT, 1000)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("ending", [close, reset, forget])
def test_a_line_that_ended_while_it_was_idle_is_not_used_again(proxy: Proxy, ending: Ending) -> None:
    with connect(proxy.url, timeout=30.0) as client:
        assert client.call("INCR", "calls") == 1
        socket_ = client._line._sock
        be_idle()  # or what the proxy's kernel sends again for want of an answer counts as a sign of life
        proxy.end(ending)
        eventually(lambda: _has_ended(socket_), "the end of the line")  # as its kernel sees it
        be_idle()
        began = time.monotonic()
        assert client.call("INCR", "calls") == 2
        assert time.monotonic() - began < 25.0
        assert client._line._sock is not socket_


def be_idle() -> None:
    threading.Event().wait(2 * line.LOOK_AFTER)


def _has_ended(socket_: socket.socket) -> bool:
    try:
        return socket_.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_a_line_on_which_a_proxy_fell_silent_is_noticed_before_it_is_used(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine hears everything, so that no socket can tell."""
    monkeypatch.setattr(line, "ASK_AFTER", 0.0)
    monkeypatch.setattr(line, "PATIENCE", 0.2)
    with connect(proxy.url) as client:
        assert client.call("INCR", "calls") == 1
        proxy.swallow()
        be_idle()
        assert client.call("INCR", "calls") == 2


def test_a_line_that_is_in_use_is_not_asked(private_redis: RedisServer) -> None:
    with connect(private_redis.url) as client:
        client.config_resetstat()
        for _ in range(3):
            client.call("GET", "x")
            be_idle()
        assert "cmdstat_ping" not in client.info("commandstats")


@pytest.mark.usefixtures("impatient")
def test_a_line_that_swallows_what_is_written_is_noticed_long_before_the_timeout(proxy: Proxy) -> None:
    with connect(proxy.url, timeout=30.0) as client:
        client.call("PING")
        be_idle()
        proxy.end(forget)
        began = time.monotonic()
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            client.call("PING")
        assert time.monotonic() - began < 25.0


def test_the_sockets_of_all_lines_ask_whether_somebody_is_there(proxy: Proxy) -> None:
    with connect(proxy.url) as client:
        assert _options(client.connection_pool) == line.KEEP_ALIVE
    with make_app({"CELERYPIPE_REDIS_URL": proxy.url}).connection_for_write() as connection:
        assert _options(connection.default_channel.pool) == line.KEEP_ALIVE


def _options(pool: redis.ConnectionPool) -> dict[int, int]:
    """What the sockets of this pool have of the options that all should have."""
    connection = pool.get_connection()
    pool.release(connection)
    assert connection._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return {option: connection._sock.getsockopt(socket.IPPROTO_TCP, option) for option in line.KEEP_ALIVE}
