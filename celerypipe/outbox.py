"""The results of one activation on their way out: gathered for a few milliseconds, published together.

The activation publishes between two messages. While a slow message runs, the keeper thread publishes what was
finished before it, so that nobody waits for a neighbour.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from celerypipe import keys
from celerypipe.connection import Client, Command
from celerypipe.mailbox import Answer, Mailbox
from celerypipe.scripts import PUBLISH

#: Results wait at most this long for others to be published with, seconds.
FLUSH_AFTER = 0.005


class Outbox:
    """Answers that are done and not published. ``room``: replies the runner may be behind with; ``budget``: bytes."""

    def __init__(self, mailbox: Mailbox, owner: str, *, room: int, budget: int) -> None:
        self.mailbox = mailbox
        self.owner = owner
        self.room = room
        self.budget = budget
        self._answers: deque[tuple[Answer, int]] = deque()
        self._lock = threading.Lock()
        self._flushed_at = time.monotonic()
        self._behind = 0
        self._published = 0

    def add(self, answer: Answer, size: int = 0) -> None:
        """Keep an answer for the next flush; ``size`` is that of its results in bytes."""
        self._answers.append((answer, size))

    def begin(self) -> None:
        """A batch begins: what it brings waits from now on."""
        self._flushed_at = time.monotonic()

    @property
    def waiting(self) -> bool:
        """Is anything in it?"""
        return bool(self._answers)

    @property
    def age(self) -> float:
        """Seconds that its results wait; 0.0 when there are none."""
        return time.monotonic() - self._flushed_at if self._answers else 0.0

    def flush(self, client: Client) -> bool:
        """Publish all of them; False: the run is over. What could not be sent stays, and the error is raised."""
        with self._lock:
            pairs = self._taken()
            if not pairs:
                return True
            with self._kept(pairs):
                waiting = self.mailbox.publish(client, self.owner, [answer for answer, _ in pairs])
            return self._sent(pairs, waiting)

    def flush_and_read(self, client: Client, reading: Command) -> tuple[bool, Any]:
        """As :meth:`flush`, with a further command in the same round trip; return its answer too."""
        with self._lock:
            pairs = self._taken()
            if not pairs:
                return True, client.call(*reading)
            with self._kept(pairs):
                publishing = self.mailbox.publishing(self.owner, [answer for answer, _ in pairs])
                client.ask(PUBLISH.command(*publishing), reading)
                try:
                    waiting = client.answer()
                except redis.exceptions.NoScriptError:
                    answer = client.answer()
                    return self._sent(pairs, PUBLISH(client, *publishing)), answer
            going = self._sent(pairs, waiting)
        return going, client.answer()

    def _taken(self) -> list[tuple[Answer, int]]:
        return [self._answers.popleft() for _ in range(len(self._answers))]

    @contextmanager
    def _kept(self, pairs: list[tuple[Answer, int]]) -> Iterator[None]:
        try:
            yield
        except BaseException:  # also an interrupt: nothing that was taken out may be lost; it is raised again
            self._answers.extendleft(reversed(pairs))
            raise

    def _sent(self, pairs: list[tuple[Answer, int]], waiting: int | None) -> bool:
        self._flushed_at = time.monotonic()
        size = sum(size for _, size in pairs)
        self._behind = waiting or 0
        self._published = size if self._behind <= 1 else self._published + size
        return waiting is not None

    @property
    def full(self) -> bool:
        """Is the runner so far behind with reading that the activation should pause?"""
        return self._behind > self.room or self._published > self.budget

    def look(self, client: Client) -> None:
        """See how many replies the runner has not read."""
        self._behind = client.xlen(keys.reply(self.mailbox.run))
        if not self._behind:
            self._published = 0
