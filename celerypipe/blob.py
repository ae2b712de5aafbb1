"""Large bytes by reference: up to 64 KiB travel inside a stream entry, more becomes a blob of its own.

A reference is ``<id>:<chunks>``; a blob above 256 MiB is written in chunks (Redis ends at 512 MB a value).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import redis

from celerypipe import keys
from celerypipe.connection import Client, Command

INLINE_LIMIT = 64 * 1024
CHUNK = 256 * 1024 * 1024


def put(client: Client, run_id: str, data: bytes) -> str:
    """Store bytes and return the reference."""
    reference, commands = putting(run_id, data)
    for answer in client.together(*commands):
        if isinstance(answer, redis.ResponseError):
            raise answer
    return reference


def putting(run_id: str, data: bytes) -> tuple[str, list[Command]]:
    """Return the reference of bytes and the commands that store them, to be asked together with others."""
    blob_id = os.urandom(9).hex()
    view = memoryview(data)
    commands: list[Command] = [
        ("SET", _key(run_id, blob_id, number), [view[start : start + CHUNK]], "PX", keys.DATA_TTL)
        for number, start in enumerate(range(0, len(data), CHUNK))
    ]
    return f"{blob_id}:{len(commands)}", commands


def get(client: Client, run_id: str, reference: str) -> bytes | None:
    """Return the bytes, or None when any of them is gone."""
    answer: list[Any] = client.mget(names(run_id, reference))
    if any(chunk is None for chunk in answer):
        return None
    return answer[0] if len(answer) == 1 else b"".join(answer)


def get_many(client: Client, run_id: str, references: Sequence[str]) -> dict[str, bytes | None]:
    """Return the bytes behind several references in one round trip; None for one that is gone."""
    if not references:
        return {}
    chunks = [names(run_id, reference) for reference in references]
    found = client.call("MGET", *(name for each in chunks for name in each))
    pieces = iter(found)
    content = {}
    for reference, each in zip(references, chunks, strict=True):
        parts = [next(pieces) for _ in each]
        content[reference] = None if None in parts else parts[0] if len(parts) == 1 else b"".join(parts)
    return content


def renew(client: redis.Redis, run_id: str, references: Sequence[str]) -> None:
    """Let blobs live for another while."""
    for reference in references:
        for name in names(run_id, reference):
            client.pexpire(name, keys.DATA_TTL)


def delete(client: redis.Redis, run_id: str, references: Sequence[str]) -> None:
    """Remove blobs that nobody needs any more."""
    gone = [name for reference in references for name in names(run_id, reference)]
    if gone:
        client.unlink(*gone)


def names(run_id: str, reference: str) -> list[str]:
    """The keys behind a reference."""
    blob_id, _, chunks = reference.partition(":")
    return [_key(run_id, blob_id, number) for number in range(int(chunks))]


def _key(run_id: str, blob_id: str, number: int) -> str:
    name = keys.blob(run_id, blob_id)
    return name if number == 0 else f"{name}:{number}"
