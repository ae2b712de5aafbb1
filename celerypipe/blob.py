"""Large bytes by reference: up to 64 KiB travel inside a stream entry, more becomes a blob of its own.

A reference is ``<id>:<chunks>``; a blob above 256 MiB is written in chunks (Redis ends at 512 MB a value).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from celerypipe import keys
from celerypipe.connection import Client

INLINE_LIMIT = 64 * 1024
CHUNK = 256 * 1024 * 1024


def put(client: Client, run_id: str, data: bytes) -> str:
    """Store bytes and return the reference; ``client`` may be a pipeline, then it happens with the rest of it."""
    blob_id = os.urandom(9).hex()
    view = memoryview(data)
    chunks = range(0, len(data), CHUNK)
    for number, start in enumerate(chunks):
        chunk = data if len(chunks) == 1 else bytes(view[start : start + CHUNK])
        client.set(_key(run_id, blob_id, number), chunk, px=keys.DATA_TTL)
    return f"{blob_id}:{len(chunks)}"


def get(client: Client, run_id: str, reference: str) -> bytes | None:
    """Return the bytes, or None when any of them is gone."""
    answer: list[Any] = client.mget(names(run_id, reference))
    if any(chunk is None for chunk in answer):
        return None
    return answer[0] if len(answer) == 1 else b"".join(answer)


def renew(client: Client, run_id: str, references: Sequence[str]) -> None:
    """Let blobs live for another while."""
    for reference in references:
        for name in names(run_id, reference):
            client.pexpire(name, keys.DATA_TTL)


def delete(client: Client, run_id: str, references: Sequence[str]) -> None:
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
