"""The results of one activation on their way out: gathered for a few milliseconds, published together.

The activation publishes between two messages. While a slow message runs, the keeper thread publishes what was
finished before it, so that nobody waits for a neighbour.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import redis

from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.wire import Answer, storing
from celerypipe.redis.connection import Client, Command, Trouble, accepted, tried_again
from celerypipe.redis.script import known

#: Results wait at most this long for others to be published with, seconds.
FLUSH_AFTER = 0.005
#: And leave at once when they are so many bytes, or so many: the runner works on them while the next ones are made.
FLUSH_SIZE = 1024 * 1024
FLUSH_COUNT = 24


#: An answer, and the size of its results in bytes.
Pair = tuple[Answer, int]


class Outbox:
    """Answers that are done and not published. ``room``: replies the runner may be behind with; ``budget``: bytes."""

    def __init__(self, mailbox: Mailbox, owner: str, *, room: int, budget: int) -> None:
        self.mailbox = mailbox
        self.owner = owner
        self.room = room
        self.budget = budget
        self._answers: deque[Pair] = deque()
        self._lock = threading.Lock()
        self._flushed_at = time.monotonic()
        self._behind = 0
        self._published = 0
        self.size = 0
        #: The reply stream was gone: the run is over.
        self.refused = False

    def add(self, answer: Answer, size: int = 0) -> None:
        """Keep an answer for the next flush; ``size`` is that of its results in bytes."""
        self._answers.append((answer, size))
        self.size += size

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
        """Publish all of them; False: the run is over. What could not be sent stays, and the error is raised.

        It may have been sent where only the answer got lost: what is published is not published again.
        """
        tried_again(client, lambda: self.publish(client))
        return not self.refused

    def publish(self, client: Client) -> None:
        """Publish all of them, if this one line to Redis works."""
        with self.emptied() as pairs:
            if pairs:
                self.sent(pairs, self.mailbox.publish(client, self.owner, [answer for answer, _ in pairs]))

    @contextmanager
    def emptied(self) -> Iterator[list[Pair]]:
        """Take everything out for the length of a block; it is all back in there if the block raises."""
        with self._lock:
            pairs = [self._answers.popleft() for _ in range(len(self._answers))]
            self.size = 0
            try:
                yield pairs
            except BaseException:  # also an interrupt: nothing that was taken out may be lost; it is raised again
                self._answers.extendleft(reversed(pairs))
                raise

    def sent(self, pairs: Sequence[Pair], waiting: int | None) -> None:
        """Note what PUBLISH said of them: how many replies the runner has not read; None: the run is over."""
        self._flushed_at = time.monotonic()
        size = sum(size for _, size in pairs)
        self._behind = waiting or 0
        self._published = size if self._behind <= 1 else self._published + size
        self.refused = waiting is None

    @property
    def due(self) -> bool:
        """Should what is in it leave before the batch is through?"""
        return self.age > FLUSH_AFTER or self.size > FLUSH_SIZE or len(self._answers) >= FLUSH_COUNT

    @property
    def full(self) -> bool:
        """Is the runner so far behind with reading that the activation should pause?"""
        return self._behind > self.room or self._published > self.budget

    def see(self, behind: int) -> None:
        """Note how many replies the runner has not read."""
        self._behind = behind
        if not behind:
            self._published = 0


def flush(client: Client, outboxes: Iterable[Outbox]) -> None:
    """Publish what several outboxes hold, in one round trip; see :meth:`Outbox.flush`."""
    if full := [box for box in outboxes if box.waiting]:
        tried_again(client, lambda: _exchange(client, full))


def exchange(client: Client, outboxes: Iterable[Outbox], command: Command) -> Any:
    """Publish what several outboxes hold, and ask one thing more, in one round trip; return the answer to that.

    Where that breaks, the results are published once more, on a new line, and the error is raised: nobody knows whether
    the other thing was done. What could not be sent stays in its outbox.
    """
    full = [box for box in outboxes if box.waiting]
    try:
        return _exchange(client, full, command)[0]
    except Trouble:
        client.close()
        _exchange(client, full)
        raise


def _exchange(client: Client, outboxes: Sequence[Outbox], *more: Command) -> list[Any]:
    with ExitStack() as until_answered:
        emptied = [(box, until_answered.enter_context(box.emptied())) for box in outboxes]
        taken = [(box, pairs) for box, pairs in emptied if pairs]  # the keeper may have been quicker
        commands: list[Command] = []
        places = []
        for box, pairs in taken:
            answers = [answer for answer, _ in pairs]
            commands += storing(answers)
            places.append(len(commands))
            commands.append(box.mailbox.publishing(box.owner, answers))
        if not commands and not more:
            return []
        client.ask(*commands, *more)
        said = client.answers(len(commands))
        found = None
        if any(isinstance(each, redis.exceptions.NoScriptError) for each in said):
            found = client.answers(len(more))  # somebody made Redis forget its scripts
            said = known(client, commands, said)
        accepted(said)
        for (box, pairs), place in zip(taken, places, strict=True):
            box.sent(pairs, said[place])
    return accepted(client.answers(len(more)) if found is None else found)
