"""Hints: what an activation says that its mailboxes do not show, for a runner that asks where a late message is.

A mailbox shows who was given an entry, and that the oldest one runs, in a batch with those behind it. It shows neither
what is held back until a batch is full, nor that a batch failed and each of its messages begins once more, by itself,
nor that nobody takes an entry since a process is about to be freed of the one before, or since the environment of its
workers cannot be built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from celerypipe.mailbox.deaths import said_in
from celerypipe.mailbox.holder import Process
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, accepted


def say_held(client: Client, consumer: str, first: Mapping[str, str], *, timeout: float) -> None:
    """Of these nodes the entries from that id on do not run: they wait for company."""
    if first:
        client.call("SET", client.names.held(consumer), json.dumps(first), "PX", int(timeout * 1000) + keys.DATA_TTL)
    else:
        client.call("DEL", client.names.held(consumer))


def held(client: Client, consumer: str) -> dict[str, str]:
    """Return the nodes of which entries are held back, and the id of the first one of each."""
    return said_in(client.get(client.names.held(consumer)), dict[str, str]) or {}


def say_anew(client: Client, consumer: str, node: str, entries: Sequence[str]) -> None:
    """A batch brought nothing, and each of these entries of it is run by itself from now on."""
    client.call("SET", client.names.anew(consumer), json.dumps([node, *entries]), "PX", keys.DATA_TTL)


def anew(client: Client, consumer: str, node: str) -> list[bytes]:
    """Return the entries of a node of which that was said last; ids are unique within one mailbox only."""
    said, *entries = said_in(client.get(client.names.anew(consumer)), list[str]) or [""]
    return [entry.encode() for entry in entries] if said == node else []


def seconds_since_anew(client: Client, consumer: str) -> float:
    """Return how long ago that was said, by Redis' clock; infinite if it was not."""
    left = int(client.pttl(client.names.anew(consumer)))
    return (keys.DATA_TTL - left) / 1000 if left > 0 else float("inf")


def say_freeing(client: Client, queues: Sequence[str], process: str, ttl: int = keys.FREEING_TTL) -> None:
    """A process was late with a message, or called back: its slot comes back in a moment, there or in another one.

    Whoever says the longest counts: a runner does not know that a whole worker ends.
    """
    now = int(client.now() * 1000)
    for key in map(client.names.freeing, queues):
        ours = ("ZADD", key, "GT", now + ttl, process)
        accepted(client.together(ours, ("ZREMRANGEBYSCORE", key, "-inf", now), ("PEXPIRE", key, keys.SPAWNING_TTL)))


def say_freed(client: Client, queues: Sequence[str], process: str) -> None:
    """The process is there again for the next message."""
    for queue in queues:
        client.zrem(client.names.freeing(queue), process)


def say_coming(client: Client, queues: Sequence[str], process: Process) -> None:
    """A new process is on its way: its slot comes once it has imported all that its nodes need."""
    say_freeing(client, queues, _coming(process), keys.SPAWNING_TTL)


def say_arrived(client: Client, queues: Sequence[str], process: Process) -> None:
    """It is there, or comes no more."""
    say_freed(client, queues, _coming(process))


def _coming(process: Process) -> str:
    """What it is called on its way: nothing that is taken off for one that ended, in whose place another came."""
    return f"coming {process}"


def say_replaced(client: Client, queues: Sequence[str], process: Process) -> None:
    """A new process serves these queues: the first one of its host that ended has its slot back."""
    for key in map(client.names.freeing, queues):
        names: Any = client.zrange(key, 0, -1)
        ended = [name for name in names if Process.read(name.decode()).host == process.host]
        if ended:
            client.zrem(key, ended[0])


def is_freeing(client: Client, queue: str) -> bool:
    """Does a slot of this queue come back in a moment?"""
    return bool(freeing(client, [queue]))


def freeing(client: Client, queues: Sequence[str]) -> set[str]:
    """Return those of the queues of which a slot comes back in a moment."""
    last = [("ZREVRANGE", client.names.freeing(queue), 0, 0, "WITHSCORES") for queue in queues]
    (seconds, _), *found = accepted(client.together(("TIME",), *last))
    return {queue for queue, said in zip(queues, found, strict=True) if said and float(said[1]) >= int(seconds) * 1000}


def say_unbuilt(client: Client, queues: Sequence[str], host: str, text: str) -> None:
    """A worker of these queues ended before it began: its environment cannot be built."""
    for key in map(client.names.unbuilt, queues):
        client.call("SET", key, json.dumps([host, text]), "PX", keys.UNBUILT_TTL)


def say_built(client: Client, queues: Sequence[str]) -> None:
    """A worker of these queues runs: what was said of one before does not count."""
    client.call("DEL", *map(client.names.unbuilt, queues))


def unbuilt(client: Client, queue: str) -> str:
    """Return why the last worker that was to serve a queue could not start, and where; empty: nothing is known."""
    host, text = said_in(client.get(client.names.unbuilt(queue)), list[str]) or ["", ""]
    return f"the worker that {host} was to start ended: {text}" if text else ""
