"""An inbox: what arrived from outside and waits for the pipeline; bounded, and closed from either end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Any


class Reception(Enum):
    """What an inbox says to a payload that is put into it."""

    TAKEN = "taken"
    FULL = "full"
    CLOSED = "closed"


class Inbox:
    """Payloads on their way from the threads of a server to the one thread that runs the source.

    ``capacity``: how many may wait; ``limit``: closes by itself after it has taken that many (None: never).
    What was taken before it closed is still handed out: the sender was told that it arrived.
    """

    def __init__(self, capacity: int, limit: int | None = None) -> None:
        self.capacity = capacity
        self.limit = limit
        self.taken = 0
        self._waiting: deque[Any] = deque()
        self._closed = limit == 0
        self._changed = threading.Condition()

    def put(self, payload: Any, *, wait: bool = False) -> Reception:
        """Take the payload, or say why not; with ``wait``, a full inbox holds the caller until there is room."""
        with self._changed:
            while wait and not self._closed and len(self._waiting) >= self.capacity:
                self._changed.wait()
            if self._closed:
                return Reception.CLOSED
            if len(self._waiting) >= self.capacity:
                return Reception.FULL
            self._waiting.append(payload)
            self.taken += 1
            self._closed = self.taken == self.limit
            self._changed.notify_all()
            return Reception.TAKEN

    def close(self) -> None:
        """Take nothing more; whoever waits here goes on at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        """Hand out payloads in the order they came, waiting for the next, until closed and empty."""
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                payload = self._waiting.popleft()
                self._changed.notify_all()
            yield payload
