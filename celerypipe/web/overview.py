"""What metrics are made of: queues, workers, what runs counted, the result cache, and Redis itself, at one moment."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import redis

from celerypipe.cache import index
from celerypipe.mailbox.counts import Counted, read_counts
from celerypipe.mailbox.status import Status, WorkerStatus, read_status
from celerypipe.redis.connection import Broken, Client


@dataclass(frozen=True, slots=True)
class Load:
    """A queue: ``messages`` that wait for a worker, and those ``in_flight``, which a worker has in hand.

    ``oldest_seconds``: since the oldest of both was sent, 0 without one. ``slots``: messages that its live ``workers``
    can work on at the same time.
    """

    messages: int = 0
    in_flight: int = 0
    oldest_seconds: float = 0.0
    slots: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class RedisMemory:
    """What Redis says of itself: bytes in use, bytes that it may use (0: any), connections."""

    used: int
    most: int
    clients: int


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it. ``cache`` and ``memory`` are None where that cannot be read."""

    queues: dict[str, Load]
    workers: tuple[WorkerStatus, ...]
    counted: tuple[Counted, ...]
    cache: index.Totals | None
    memory: RedisMemory | None

    def of(self, queues: list[str]) -> Overview:
        """Return what concerns these queues; one that nothing is known of is idle."""
        return Overview(
            {name: self.queues.get(name, Load()) for name in queues},
            tuple(worker for worker in self.workers if set(queues) & set(worker.queues)),
            tuple(each for each in self.counted if each.queue in queues),
            self.cache,
            self.memory,
        )


def read_overview(client: Client, cache: Client | None = None) -> Overview:
    """Read it, in a dozen round trips however much there is. ``cache``: where results are kept, if not there too."""
    found = read_status(client)
    known, counted = read_counts(client)
    return Overview(_loads(found, known), found.workers, tuple(counted), _totals(client, cache), _memory(client))


def _loads(found: Status, known: Iterable[str]) -> dict[str, Load]:
    """The queues that anything is known of; only what runs that go on have sent waits for anybody."""
    running = {run.id for run in found.runs if run.state == "running"}
    loads = dict.fromkeys(known, Load())
    for queue in found.queues:
        boxes = [box for box in found.mailboxes if box.queue == queue.name and box.run in running]
        waiting, out = sum(box.waiting for box in boxes), sum(box.out for box in boxes)
        oldest = max((box.oldest for box in boxes if box.oldest is not None), default=0.0)
        loads[queue.name] = Load(waiting, out - waiting, oldest, queue.slots, queue.workers)
    return dict(sorted(loads.items()))


def _totals(client: Client, cache: Client | None) -> index.Totals | None:
    if cache is None:
        with suppress(redis.ResponseError):  # this user may not ask
            return index.totals(client)
        return None
    with suppress(*Broken):  # it is no part of what goes on
        return index.totals(cache)
    return None


def _memory(client: Client) -> RedisMemory | None:
    try:
        said = client.call("INFO").decode(errors="replace")
        facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        return RedisMemory(*(int(facts[name]) for name in ("used_memory", "maxmemory", "connected_clients")))
    except (redis.ResponseError, KeyError, ValueError):  # this user may not ask, or it is something like a Redis
        return None
