"""What is read of where messages spent their time: it lies in files and in Redis, where anybody may have written it."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec

from celerypipe.errors import ConfigError


class _Tried(msgspec.Struct):
    at: float
    error: str
    worker: str


class _Passed(msgspec.Struct):
    node: str
    message: str
    came: float
    seconds: float
    outcome: str
    worker: str
    attempts: list[_Tried]
    parts: dict[Literal["hold", "wait", "warm-up", "run", "transfer"], float]


class _Path(msgspec.Struct):
    origin: str
    number: int
    began: float
    seconds: float
    hops: list[_Passed]


def paths_in(data: bytes, place: str) -> list[dict[str, Any]]:
    """Return the paths of messages; :class:`ConfigError`: it is something else."""
    try:
        msgspec.json.decode(data, type=list[_Path])
        return list(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} holds no traces of a run: {error}") from None
