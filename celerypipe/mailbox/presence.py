"""A worker's presence: its own key in Redis, which says who it is, what it serves and that it lives.

Read by runners (is anyone there? which arguments does that mark take?), by ``Embedded`` and by the command line;
``inspect`` would take its full timeout every time, and a busy solo worker does not answer it at all.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Annotated, Any

import msgspec

from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.liveness import is_named
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, accepted

logger = logging.getLogger("celerypipe.worker")

Presence = dict[str, Any]

#: A worker with more is none: whoever reads that looks at each slot.
MOST_SLOTS = 65_536


class ArgumentShape(msgspec.Struct):
    """What a presence says of an argument of a node at least."""

    name: str
    required: bool
    digest: str = ""


class MarkShape(msgspec.Struct):
    """What a presence says of a node at least."""

    mark: str
    arguments: list[ArgumentShape]
    code: str = ""
    cache_meta: list[str] = []


class PresenceShape(msgspec.Struct):
    """What a presence says at least, and what is taken for the rest."""

    id: str
    host: str
    pid: int
    pool: str
    slots: Annotated[int, msgspec.Meta(ge=0, le=MOST_SLOTS)]
    queues: list[str]
    marks: dict[str, MarkShape]
    versions: dict[str, Any]
    interrupts: bool = False
    shared: str = ""
    compressions: list[str] = []
    keys: list[str] = []
    processes: list[int] = []
    started: float = 0.0
    clock: float = 0.0


def read_presences(client: Client) -> list[Presence]:
    """Return what every live worker says of itself: those whose process is named by their heartbeat."""
    names = [name.decode(errors="replace") for name in client.call("ZRANGE", keys.WORKERS, 0, -1)]
    if not names:
        return []
    processes = [Process.read(name) for name in names]
    beats = [keys.heartbeat(process.host, process.life) for process in processes]
    found = client.call("MGET", *map(keys.presence, names), *beats)
    return [
        record
        for process, text, beat in zip(processes, found[: len(names)], found[len(names) :], strict=True)
        if text is not None and is_named(process, beat) and (record := _record(text)) is not None
    ]


def _record(text: bytes) -> Presence | None:
    """What one worker says; None if no worker of ours said it: one stranger must not take all runs down."""
    try:
        record = json.loads(text)
        shape = msgspec.convert(record, PresenceShape)
    except (ValueError, RecursionError) as error:
        logger.debug("a presence that no worker of celerypipe wrote: %s", error)
        return None
    return {**msgspec.structs.asdict(shape), **record}


def write_presence(client: Client, record: Presence) -> None:
    """Say that the worker lives, and in the field ``clock`` by how many seconds its clock is ahead of Redis'."""
    before = time.time()
    now = int(client.now() * 1000)
    clock = round((before + time.time()) / 2 - now / 1000, 3)
    with client.pipeline(transaction=True) as together:
        together.set(keys.presence(record["id"]), json.dumps({**record, "clock": clock}), ex=keys.PRESENCE_TTL)
        together.zadd(keys.WORKERS, {record["id"]: now})
        together.zremrangebyscore(keys.WORKERS, "-inf", f"({now - keys.PRESENCE_TTL * 1000}")  # the dead are forgotten
        together.expire(keys.WORKERS, 10 * keys.PRESENCE_TTL)
        together.execute()


def removing_presence(worker_id: str) -> list[Command]:
    """Return the commands that take a worker off the list."""
    return [("DEL", keys.presence(worker_id)), ("ZREM", keys.WORKERS, worker_id)]


def remove_presence(client: Client, worker_id: str) -> None:
    """Take a worker off the list at once, so that nobody rings for it."""
    accepted(client.together(*removing_presence(worker_id)))
