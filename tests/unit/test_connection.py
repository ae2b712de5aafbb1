"""What is written to Redis, and how a refusal reads."""

from __future__ import annotations

import array

import pytest
import redis

from celerypipe.connection import WRITE_SIZE, packed, said


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
        (redis.ReadOnlyError("x"), "it is a replica: give the address of its master"),
        (redis.ResponseError("MISCONF the disk"), "Redis refuses (MISCONF the disk)"),
        (redis.ConnectionError("refused"), "Redis does not answer (refused)"),
    ],
)
def test_what_redis_says_is_told_with_a_cure(error: redis.RedisError, text: str) -> None:
    assert text in said(error)
