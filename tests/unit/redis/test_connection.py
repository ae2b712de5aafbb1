"""What is written to Redis, and how a refusal reads."""

from __future__ import annotations

import array
import socketserver
import threading

import pytest
import redis

from celerypipe.errors import ConfigError, RedisUnavailable
from celerypipe.redis.address import Address
from celerypipe.redis.connection import WRITE_SIZE, connect, explained, knock, packed, said
from celerypipe.redis.url import read_address


@pytest.mark.parametrize("size", [0, 10, 16 * 1024, WRITE_SIZE, WRITE_SIZE + 1, 5 * WRITE_SIZE + 3])
def test_no_piece_is_larger_than_what_a_slow_line_takes_in_time(size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    pieces = packed([("SET", "key", [content[: size // 2], content[size // 2 :]]), ("PING",)])
    whole = b"".join(pieces)
    assert whole == b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$%d\r\n%b\r\n*1\r\n$4\r\nPING\r\n" % (size, content)
    assert max(map(len, pieces)) <= WRITE_SIZE + 64


def test_numbers_are_written_by_their_bytes() -> None:
    numbers = array.array("d", range(WRITE_SIZE // 4))  # twice a piece
    pieces = packed([("SET", "key", [memoryview(numbers)])])
    assert b"".join(pieces).endswith(numbers.tobytes() + b"\r\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (redis.BusyLoadingError("x"), "Redis is loading its data"),
        (redis.OutOfMemoryError("x"), "raise maxmemory"),
        (redis.ReadOnlyError("x"), "is a replica and takes no writes: give the address of its master"),
        (redis.ResponseError("MISCONF the disk"), "Redis refuses (MISCONF the disk)"),
        (redis.ConnectionError("refused"), "Redis does not answer (refused)"),
        (redis.ConnectionError("max number of clients reached"), "Redis takes no more connections: end one"),
    ],
)
def test_what_redis_says_is_told_with_a_cure(error: redis.RedisError, text: str) -> None:
    assert text in said(error)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("foo=bar", "leave foo out"),
        ("socket_timeout=soon", "socket_timeout"),
        ("ssl_ca_certs=ca.pem", "need rediss://, with two s"),
    ],
)
def test_options_of_a_url_that_there_are_not_are_named(options: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        connect(f"redis://:secret@localhost:1/0?{options}")
    assert "secret" not in str(caught.value)


class Web(socketserver.StreamRequestHandler):
    """Answers like a web server."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_what_is_no_redis_is_said_in_a_line() -> None:
    with socketserver.ThreadingTCPServer(("localhost", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = Address("localhost", server.server_address[1])
        with (
            pytest.raises(RedisUnavailable, match="is not a Redis server"),
            explained(address),
            connect(address) as client,
        ):
            client.ping()
        with pytest.raises(ConfigError, match="is not a Redis server"):
            knock(address, "--broker")
        server.shutdown()


def test_a_password_for_a_redis_that_has_none_is_to_be_left_out(redis_url: str) -> None:
    with pytest.raises(ConfigError, match=r"has no password; leave it out: redis://host:6379/0") as caught:
        knock(read_address(redis_url.replace("unix://", "unix://:s3cret@")), "--redis")
    assert "s3cret" not in str(caught.value)
