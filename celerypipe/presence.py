"""A worker's presence: its own key in Redis, which says who it is, what it serves and that it lives.

Read by runners (is anyone there? which arguments does that mark take?), by ``Embedded`` and by the command line;
``inspect`` would take its full timeout every time, and a busy solo worker does not answer it at all.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import redis

from celerypipe import keys
from celerypipe.connection import Client, Trouble, connect

logger = logging.getLogger("celerypipe.worker")

Record = dict[str, Any]

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


class Shape(msgspec.Struct):
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


def read_presences(client: Client) -> list[Record]:
    """Return what every live worker says of itself: those that said it in the last ``PRESENCE_TTL`` seconds."""
    names: Any = client.zrangebyscore(keys.WORKERS, _now(client) - keys.PRESENCE_TTL * 1000, "+inf")
    if not names:
        return []
    texts: Any = client.mget([keys.presence(_text(name)) for name in names])
    return [record for text in texts if text is not None and (record := _record(text)) is not None]


def _record(text: bytes) -> Record | None:
    """What one worker says; None if no worker of ours said it: one stranger must not take all runs down."""
    try:
        record = json.loads(text)
        shape = msgspec.convert(record, Shape)
    except (ValueError, RecursionError) as error:
        logger.debug("a presence that no worker of celerypipe wrote: %s", error)
        return None
    return {**msgspec.structs.asdict(shape), **record}


def write_presence(client: Client, record: Record) -> None:
    """Say that the worker lives, and in the field ``clock`` by how many seconds its clock is ahead of Redis'."""
    before = time.time()
    now = _now(client)
    clock = round((before + time.time()) / 2 - now / 1000, 3)
    with client.pipeline(transaction=True) as together:
        together.set(keys.presence(record["id"]), json.dumps({**record, "clock": clock}), ex=keys.PRESENCE_TTL)
        together.zadd(keys.WORKERS, {record["id"]: now})
        together.zremrangebyscore(keys.WORKERS, "-inf", f"({now - keys.PRESENCE_TTL * 1000}")  # the dead are forgotten
        together.expire(keys.WORKERS, 10 * keys.PRESENCE_TTL)
        together.execute()


def remove_presence(client: Client, worker_id: str) -> None:
    """Take a worker off the list at once, so that nobody rings for it."""
    with client.pipeline(transaction=True) as together:
        together.delete(keys.presence(worker_id))
        together.zrem(keys.WORKERS, worker_id)
        together.execute()


class PresenceKeeper:
    """A daemon thread that keeps one worker's presence alive through anything Redis does."""

    def __init__(self, url: str, record: Callable[[], Record], look: Callable[[Client | None], None]) -> None:
        """``record`` is asked at every refresh; ``look`` is called after it, with None while Redis is away."""
        self.record = record
        self.look = look
        self._client: Client | None = None
        self.url = url
        # A SimpleQueue may be written to inside a signal handler, an Event may not. None: end.
        self._told: queue.SimpleQueue[Callable[[Client], None] | None] = queue.SimpleQueue()
        self._unsaid: deque[Callable[[Client], None]] = deque()
        self._thread = threading.Thread(target=self._keep, name="celerypipe-presence", daemon=True)
        self._away = False

    def start(self) -> None:
        """Write the presence now, and every ``PRESENCE_REFRESH`` seconds from now on."""
        self._thread.start()

    def end(self) -> None:
        """Remove the presence; callable inside a signal handler, waits for nothing."""
        self._told.put(None)

    def say(self, action: Callable[[Client], None]) -> None:
        """Have the thread do something in Redis, now or once that answers again; waits for nothing."""
        self._told.put(action)

    def join(self, timeout: float) -> None:
        """Wait until the presence is removed."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _keep(self) -> None:
        while True:
            there = self._try(lambda client: write_presence(client, self.record()))
            if not there or not self._try(self.look):
                self.look(None)
            goes_on = self._listen()
            while self._unsaid and self._try(self._unsaid[0]):
                self._unsaid.popleft()
            if goes_on:
                continue
            self._try(lambda client: remove_presence(client, self.record()["id"]))
            if self._client is not None:
                self._client.close()
            return

    def _listen(self) -> bool:
        """Wait until the next refresh, or until there is something to say; False: it is to end."""
        try:
            action = self._told.get(timeout=keys.PRESENCE_REFRESH)
        except queue.Empty:
            return True
        if action is not None:
            self._unsaid.append(action)
        return action is not None

    def _try(self, action: Callable[[Client], None]) -> bool:
        """Do it; False when Redis is away, said once per outage."""
        try:
            if self._client is None:
                self._client = connect(self.url, name="celerypipe-presence", timeout=5.0)
            action(self._client)
        except (*Trouble, redis.RedisError) as error:
            if not self._away:
                logger.warning("presence: Redis does not answer (%s); trying every %d s", error, keys.PRESENCE_REFRESH)
            self._away = True
            return False
        if self._away:
            logger.info("presence: Redis answers again")
        self._away = False
        return True


def _now(client: Client) -> int:
    answer: Any = client.time()
    return int(answer[0]) * 1000 + int(answer[1]) // 1000


def _text(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
