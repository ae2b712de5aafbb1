"""Threads for what takes long: large blobs, and the second tier. Small answers never wait behind them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from celerypipe.redis.address import Address
from celerypipe.redis.connection import Client, OneLine, connect
from celerypipe.redis.secret import hidden_in

logger = logging.getLogger(__name__)

THREADS = 4
#: Works that may wait; what comes on top is not done.
MOST = 10_000

T = TypeVar("T")
Work = Callable[[], None]


class Lane:
    """A few threads, each with a client of its own. They start with the first work and end with :meth:`close`."""

    def __init__(self, address: Address | None) -> None:
        self._address = address
        self._works: SimpleQueue[Work | None] = SimpleQueue()
        self._mine = threading.local()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.pending = 0

    @property
    def client(self) -> Client:
        """The client of the thread that asks."""
        if not hasattr(self._mine, "client"):
            assert self._address is not None  # noqa: S101  # asked for where there is a Redis
            self._mine.client = connect(self._address, name="celerypipe-cache", kind=OneLine)
        client: Client = self._mine.client
        return client

    def do(self, work: Callable[[], T], then: Callable[[T | None], None]) -> None:
        """Do it in one of the threads, which tells what came of it; None if that failed. Called by one thread."""
        if self.pending >= MOST:
            then(None)
            return
        with self._lock:
            self.pending += 1
        if len(self._threads) < min(THREADS, self.pending):
            thread = threading.Thread(target=self._serve, name="celerypipe-cache-lane", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._works.put(lambda: self._do(work, then))

    def _do(self, work: Callable[[], T], then: Callable[[T | None], None]) -> None:
        found: T | None = None
        try:
            found = work()
        except Exception as error:  # noqa: BLE001  # what a tier raises is its own; it is a miss, or is not kept
            logger.debug("the result cache failed: %s", hidden_in(str(error)))
        try:
            then(found)
        finally:
            with self._lock:
                self.pending -= 1

    def _serve(self) -> None:
        while (work := self._works.get()) is not None:
            work()
        if hasattr(self._mine, "client"):
            self._mine.client.close()

    def close(self) -> None:
        """Let the threads end when they have done what waits."""
        for _ in self._threads:
            self._works.put(None)
