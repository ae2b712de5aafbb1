"""A worker's presence: its own key in Redis, which says who it is, what it serves and that it lives.

Read by runners (is anyone there? which arguments does that mark take?), by ``Embedded`` and by the command line;
``inspect`` would take its full timeout every time, and a busy solo worker does not answer it at all.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import redis

from celerypipe.mailbox import protocol
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.liveness import is_named
from celerypipe.mailbox.protocol import Spoken, protocol_of, unlike
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.redis.keys import USUAL, Names
from celerypipe.redis.namespace import DEFAULT, is_namespace, name_in, named
from celerypipe.redis.signing import Keyring, strangers

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


class WorkerShape(msgspec.Struct):
    """What a presence says in every protocol; without ``protocol`` in one that is older than all with a number."""

    id: str
    host: str
    pid: int
    queues: list[str]
    protocol: tuple[int, int] = (0, 0)


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
    keeps_interrupted: bool = False
    shared: str = ""
    compressions: list[str] = []
    keys: list[str] = []
    processes: list[int] = []
    started: float = 0.0
    clock: float = 0.0
    name: str = ""


def read_presences(client: Client, called: Names | None = None) -> list[Presence]:
    """Return what every live worker says of itself: those whose process is named by their heartbeat.

    Of another protocol those that said so lately: how they beat is not known here. ``called``: the keys of another
    namespace than the client's.
    """
    called = called or client.names
    listed, clock = accepted(client.together(("ZRANGE", called.workers, 0, -1, "WITHSCORES"), ("TIME",)))
    if not listed:
        return []
    names, lately = [name.decode(errors="replace") for name in listed[::2]], int(clock[0]) - keys.FOREIGN_TTL
    processes = [Process.read(name) for name in names]
    beats = [called.heartbeat(process.host, process.life) for process in processes]
    found = client.call("MGET", *map(called.presence, names), *beats)
    return [
        record
        for process, said, text, beat in zip(
            processes, listed[1::2], found[: len(names)], found[len(names) :], strict=True
        )
        if text is not None
        and (record := _record(text)) is not None
        and (is_named(process, beat) or (float(said) > lately * 1000 and foreign(record)))
    ]


def _record(text: bytes) -> Presence | None:
    """What one worker says; None if no worker of ours said it: one stranger must not take all runs down.

    Of a worker whose protocol is unknown here only that is taken which never changes: it has no slots, and no marks.
    """
    try:
        record = json.loads(text)
        known = msgspec.to_builtins(msgspec.convert(record, WorkerShape))
        "".join((known["id"], known["host"], *known["queues"])).encode()  # no name has half a character
        if not protocol.SPOKEN.understands(Spoken(*known["protocol"])):
            return {**known, "pool": "", "slots": 0, "marks": {}, "versions": {}, "interrupts": False}
        shape = msgspec.convert(record, PresenceShape)
    except (ValueError, RecursionError) as error:
        logger.debug("a presence that no worker of celerypipe wrote: %s", error)
        return None
    return {**msgspec.structs.asdict(shape), **record}


def foreign(worker: Presence) -> str:
    """Say that it speaks another protocol than this side, and the cure; nothing if it does not."""
    return unlike(protocol_of(worker.get("protocol")) or Spoken(), worker["host"])


def stranger(worker: Presence, keyring: Keyring | None) -> str:
    """Say why this side and a worker do not understand each other, and the cure; nothing if they do."""
    return foreign(worker) or strangers(keyring, worker.get("keys", ()))


def write_presence(client: Client, record: Presence) -> None:
    """Say that the worker lives, and in the field ``clock`` by how many seconds its clock is ahead of Redis'."""
    before = time.time()
    now = int(client.now() * 1000)
    clock = round((before + time.time()) / 2 - now / 1000, 3)
    own, workers = client.names.presence(record["id"]), client.names.workers
    with client.pipeline(transaction=True) as together:
        together.set(own, json.dumps({**record, "clock": clock}), ex=keys.PRESENCE_TTL)
        together.zadd(workers, {record["id"]: now})
        together.zremrangebyscore(workers, "-inf", f"({now - keys.PRESENCE_TTL * 1000}")  # the dead are forgotten
        together.expire(workers, 10 * keys.PRESENCE_TTL)
        together.execute()

    if client.names != USUAL:
        said = ("ZADD", keys.NAMESPACES, now, name_in(client.names))
        with suppress(redis.exceptions.NoPermissionError):  # a user of this namespace alone
            accepted(client.together(said, ("EXPIRE", keys.NAMESPACES, 10 * keys.PRESENCE_TTL)))


def elsewhere(client: Client, queue: str) -> list[str]:
    """Return the other namespaces of this Redis in which live workers serve a queue of that name."""
    try:
        since = int((client.now() - keys.PRESENCE_TTL) * 1000)
        told: Any = client.zrangebyscore(keys.NAMESPACES, since, "+inf")
        spaces = sorted({DEFAULT, *(name.decode(errors="replace") for name in told)})
        found = [(space, named(space)) for space in spaces if is_namespace(space)]
        return [
            space
            for space, names in found
            if names != client.names and any(queue in each["queues"] for each in read_presences(client, names))
        ]
    except redis.exceptions.NoPermissionError:  # a user of one namespace alone
        return []


def removing_presence(names: keys.Names, worker_id: str) -> list[Command]:
    """Return the commands that take a worker off the list."""
    return [("DEL", names.presence(worker_id)), ("ZREM", names.workers, worker_id)]


def remove_presence(client: Client, worker_id: str) -> None:
    """Take a worker off the list at once, so that nobody rings for it."""
    accepted(client.together(*removing_presence(client.names, worker_id)))
