"""The messages of one run on their way into the mailboxes: many in one round trip, or one at once.

A message that is alone is sent by the thread that brought it: a second thread would cost it more time than Redis does.
What comes while others are out waits a moment for company and is sent by the post thread.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import redis

from celerypipe import codec
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.wire import packed_entry
from celerypipe.redis.connection import Broken, Client, Command, accepted
from celerypipe.redis.script import together
from celerypipe.runner.carrier.bells import Bells
from celerypipe.runner.warp.carriage import Carrier
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp

#: Up to so many messages that one batch of results set off are sent by the thread that reads results.
SEND_HERE = 8


class Recovering(Carrier[Warp], Protocol):
    """A carrier that hears of its sender what went wrong, under the lock of that."""

    def redis_lost(self, error: BaseException) -> None:
        """Redis does not answer."""

    def mailbox_lost(self) -> None:
        """A mailbox is missing."""


class Sender:
    """Sends; ``lock`` is held by whoever uses the client or the bells."""

    def __init__(self, client: Client, bells: Bells, mailboxes: Mapping[str, Mailbox], carrier: Recovering) -> None:
        self.lock = threading.Lock()
        #: Redis is away: only the post thread tries.
        self.halted = False
        self._client = client
        self._bells = bells
        self._mailboxes = mailboxes
        self._carrier = carrier
        self._waiting: deque[tuple[Warp, Flight]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._gatherer = 0

    def put(self, warp: Warp, flight: Flight, *, wait: bool) -> None:
        """Take a message; ``wait``: the calling thread may wait for an answer of Redis."""
        flight.sent_at = time.monotonic()
        flight.note = None  # sent once more, it begins anew
        self._waiting.append((warp, flight))
        if threading.get_ident() == self._gatherer:
            return
        if wait and len(warp.flights) == 1:
            self._send_here()
        else:
            self.wake()

    def wake(self) -> None:
        """Let the post thread look."""
        with self._changed:
            self._changed.notify()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """What the calling thread puts in meanwhile leaves together at the end."""
        self._gatherer = threading.get_ident()
        try:
            yield
        finally:
            self._gatherer = 0
            if len(self._waiting) <= SEND_HERE:
                self._send_here()
            else:
                self.wake()

    def answered(self, warp: Warp) -> None:
        """Results came: let the post thread ring at once if the rest is worth many more slots than it seemed."""
        if self._bells.answered(warp):
            self.wake()

    def waits(self) -> set[Flight]:
        """The messages that are not sent yet."""
        return {flight for _, flight in list(self._waiting)}

    def forget(self, warp: Warp) -> None:
        """Send nothing of what waits for this warp."""
        for item in list(self._waiting):
            if item[0] is warp:
                self._waiting.remove(item)

    def rest(self) -> bool:
        """Wait in the post thread for something to send or to ring for; False: the run closes."""
        with self._changed:
            if self.halted and not self._closing:
                self._changed.wait(0.2)
            while not self._waiting and not self._closing:
                left = self._bells.look_at - time.monotonic()
                if left <= 0 or self.halted:
                    break
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            return not self._closing

    def close(self) -> None:
        """Send nothing any more."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _send_here(self) -> None:
        while self._waiting and not self.halted and not self._closing and self.lock.acquire(blocking=False):
            try:
                self.send()
            except Broken as error:
                self._carrier.redis_lost(error)
                self.wake()
            finally:
                self.lock.release()
            if self._bells.look_at < math.inf:
                self.wake()

    def send(self) -> None:
        """Send all that waits; the caller holds the lock."""
        batch: dict[Warp, list[Flight]] = {}
        for _ in range(len(self._waiting)):
            warp, flight = self._waiting.popleft()
            # The result of one that goes out again may have come meanwhile; its state still wants it.
            if flight.done and (warp.retained is None or not warp.retained.keeps(flight)):
                continue
            if warp.carrier is self._carrier:
                batch.setdefault(warp, []).append(flight)
            else:  # the warp was moved while this message was handed over
                self._carrier.settled(warp, flight)
                warp.carrier.post(warp, flight)
        if batch:
            self._send_batch(batch)

    def _send_batch(self, batch: Mapping[Warp, list[Flight]]) -> None:
        commands: list[Command] = []
        tasks: list[Command] = []
        sendings = []
        for warp, flights in batch.items():
            entries = [self._packed(warp, flight, commands) for flight in flights]
            token, wanted, ttl = self._bells.plan(warp)
            early = [0] if wanted and self._bells.may_be_early(warp, len(flights)) else []
            sendings.append((len(commands), warp, flights, token, early))
            commands.append(self._mailboxes[warp.name].sending(entries, token=token, wanted=wanted, ttl=ttl))
            tasks += self._bells.sending(warp, early, token)
        answers = together(self._client, *commands, *tasks)
        self._bells.sent(answers[len(commands) :])
        del answers[len(commands) :], tasks[:]
        for place, warp, flights, token, early in sendings:
            if answers[place] is not None and not isinstance(answers[place], redis.ResponseError):
                tasks += self._sent(warp, flights, token, early, answers[place])
        accepted(answers)
        if tasks:
            self._bells.sent(self._client.together(*tasks))
        if any(answers[place] is None for place, *_ in sendings):
            self._carrier.mailbox_lost()

    def _packed(self, warp: Warp, flight: Flight, commands: list[Command]) -> bytes:
        if flight.data is None:
            self._carrier.load(warp, flight, codec.encode_apart((flight.message,)))
        data = flight.data or b""
        commands += flight.storing
        flight.data, flight.storing = None, ()
        blob = flight.blob.reference if flight.blob else ""
        return packed_entry(flight.sequence, flight.attempt, blob, data, alone=flight.alone)

    def _sent(self, warp: Warp, flights: list[Flight], token: str, early: list[int], answer: Any) -> list[Command]:
        """Note what was appended; return the commands that send the tasks of the slots that were rung."""
        ids, rung = answer
        for flight, entry in zip(flights, ids, strict=True):
            flight.entry = entry
        if early:
            self._bells.was_early(warp, rung)
        return self._bells.sending(warp, [slot for slot in rung if slot not in early], token)
