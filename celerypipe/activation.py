"""An activation: one Celery task run that drains the mailbox of a warped node.

It takes the bell, takes a warm instance, and then: claims what dead activations left, reads, updates, publishes -
until the mailbox is idle, others need the worker, its term is over, the run ends, or the worker shuts down.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from celery.exceptions import WorkerShutdown, WorkerTerminate

from celerypipe import blob, codec, keys
from celerypipe.connection import Client
from celerypipe.errors import CelerypipeError, CodecError, ConfigError
from celerypipe.instance import Instance, Interrupted, brief, trace
from celerypipe.keeper import Keeper, Lease
from celerypipe.mailbox import FAILURE, LOST_BLOB, RESULT, Answer, Entry, Mailbox, entries_in
from celerypipe.message import Message
from celerypipe.outbox import FLUSH_AFTER, Outbox

logger = logging.getLogger(__name__)

#: Work that one read may bring, in seconds by the activation's own average, and its bounds in messages.
READ_WORK = 0.020
READ_MOST = 256
#: How often a message is handed to ``update`` alone after its process died, before it is given up.
LONE_ATTEMPTS = 2
#: An idle wait looks around this often, milliseconds.
IDLE_LOOK = 100

#: Run, node and message that the current thread works on.
at_work: contextvars.ContextVar[str] = contextvars.ContextVar("celerypipe_at_work", default="")


class AtWork(logging.Filter):
    """Gives every log record the field ``at_work``: run, node and message id, or nothing between messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the field; let everything through."""
        record.at_work = at_work.get()
        return True


@dataclass(frozen=True, slots=True)
class Record:
    """What a runner wrote about a warped node: limits in seconds, ``room`` in replies."""

    mark: str
    configuration: dict[str, Any]
    timeout: float | None
    linger: float
    slice: float
    term: float
    room: int
    budget: int

    @classmethod
    def read(cls, data: bytes) -> Record:
        """Decode it; :class:`CodecError` when it is of another version."""
        return cls(**codec.decode_value(data))


class Activation:
    """Drains one mailbox. ``queues`` are those of its worker; ``shutting_down`` tells when the worker wants to go."""

    def __init__(
        self,
        client: Client,
        lease: Lease,
        record: Record,
        instance: Instance,
        *,
        keeper: Keeper,
        queues: Sequence[str],
        shutting_down: Any,
    ) -> None:
        self.client = client
        self.lease = lease
        self.mailbox: Mailbox = lease.mailbox
        self.record = record
        self.instance = instance
        self.keeper = keeper
        self.queues = queues
        self.shutting_down = shutting_down
        self.done = 0
        self.offset = 0.0
        self._began = 0.0
        self._mean: float | None = None
        self.outbox = lease.outbox = Outbox(lease.mailbox, lease.owner, room=record.room, budget=record.budget)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def serve(self) -> str:
        """Drain until there is a reason to stop; return the reason."""
        reason = self._drain()
        self._flush()
        return reason if self.lease.state == "held" else self.lease.state

    def _drain(self) -> str:
        seconds, micros = self.client.time()
        self.offset = seconds + micros / 1e6 - time.time()
        start = self._began = busy = looked = time.monotonic()
        claim_at = 0.0
        while True:
            now = time.monotonic()
            if reason := self._must_stop(now - start):
                return reason
            if now >= claim_at:
                claim_at = now + 1.0
                for entry in self.mailbox.claim(self.client, self.lease.owner, READ_MOST):
                    if reason := self._must_stop(time.monotonic() - start):
                        return reason
                    self._alone(entry)
            entries = self._read(block=IDLE_LOOK)
            if entries:
                self._work(entries)
                busy = time.monotonic()
                if busy - looked > self.record.slice:
                    looked = busy
                    if self._others_wait():
                        return "others wait"
            elif (idle := time.monotonic() - busy) > 0 and (idle > self.record.linger or self._others_wait()):
                return "idle"

    def _must_stop(self, age: float) -> str:
        if self.lease.state != "held":
            return self.lease.state
        if self.shutting_down():
            return "shutdown"
        return "term" if age > self.record.term else ""

    def _others_wait(self) -> bool:
        lengths = self.client.pipeline(transaction=False)
        for queue in self.queues:
            lengths.llen(queue)
        return any(lengths.execute(raise_on_error=False))

    def _read(self, block: int) -> list[Entry]:
        """Publish what is done and read on, in one round trip."""
        count = 1 if self._mean is None else max(1, min(READ_MOST, int(READ_WORK / max(self._mean, 1e-6))))
        self._pause_while_full()
        self.lease.alarm.unguard()
        try:
            reading = self.mailbox.reading(self.lease.owner, count, block)
            going, answer = self.outbox.flush_and_read(self.client, reading)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self.lease.state = "lost"  # the mailbox is gone; its runner makes it anew and rings
            return []
        if not going:
            self.lease.state = "over"
        return entries_in(answer)

    # -- messages ---------------------------------------------------------------------------------------------------

    def _work(self, entries: Sequence[Entry]) -> None:
        received = time.monotonic()
        blobs = self._fetch(entries)
        self.outbox.begin()
        if len(entries) > 1:
            self.keeper.hurry()
        for entry in entries:
            if self._must_stop(time.monotonic() - self._began):
                break  # what is left comes back by claim
            self._handle(entry, blobs)
            if self.outbox.age > FLUSH_AFTER:
                self._flush()
        spent = (time.monotonic() - received) / len(entries)
        self._mean = spent if self._mean is None else 0.7 * self._mean + 0.3 * spent

    def _alone(self, entry: Entry) -> None:
        """Run a claimed message by itself, counted: it may be the one that killed its process."""
        name = keys.attempts(self.mailbox.run, self.mailbox.node)
        tried = self.client.hincrby(name, str(entry.sequence), 1)
        self.client.pexpire(name, keys.DATA_TTL)
        if tried > LONE_ATTEMPTS:
            text = f"the process that ran it died {tried} times"
            self.outbox.add(self._failure(entry, "lost", "WorkerLost", text))
        elif self.lease.state == "held":
            self._work([entry])
        self._flush()  # the next one may be the one that kills

    def _fetch(self, entries: Sequence[Entry]) -> dict[str, bytes | None]:
        return {e.blob: blob.get(self.client, self.mailbox.run, e.blob) for e in entries if e.blob}

    def _handle(self, entry: Entry, blobs: dict[str, bytes | None]) -> None:
        data = blobs[entry.blob] if entry.blob else entry.data
        if data is None:
            self.outbox.add(Answer(entry, LOST_BLOB, 0.0, 0.0, "", b""))
            return
        waited = max(0.0, time.time() + self.offset - int(entry.id.partition("-")[0]) / 1000)
        start = time.perf_counter()
        self.lease.current = entry.id
        try:
            message = codec.decode(data)[0]
            at_work.set(f"run {self.mailbox.run} node {self.mailbox.node} message {message.id}: ")
            outputs = self._update(message)
            ran = time.perf_counter() - start
            body = codec.encode_joined(outputs)
            reference = ""
            size = len(body)
            if len(body) > blob.INLINE_LIMIT:
                self.lease.alarm.unguard()
                reference, body = blob.put(self.client, self.mailbox.run, body), b""
            self.outbox.add(Answer(entry, RESULT, waited, ran, reference, body), size)
        except Interrupted as interrupt:
            self._interrupted(entry, interrupt.reason, waited, time.perf_counter() - start)
        except (WorkerShutdown, WorkerTerminate):
            raise  # Celery's own, out of its signal handlers
        except BaseException as error:  # what user code raises, sys.exit too, fails this message
            logger.warning("%s", brief(error), exc_info=not isinstance(error, CelerypipeError))
            kind = (
                "config" if isinstance(error, ConfigError) else "codec" if isinstance(error, CodecError) else "failed"
            )
            self.outbox.add(
                self._failure(
                    entry, kind, type(error).__name__, brief(error), trace(error), waited, time.perf_counter() - start
                )
            )
        finally:
            self.lease.current = ""
            at_work.set("")
        self.done += 1

    def _update(self, message: Message) -> list[Message]:
        if self.instance.node is None:
            with self._preparing():
                self.instance.warm()
        outputs: list[Message] = self.lease.alarm.call(
            self.record.timeout, self.instance.update, message, self.lease.current
        )
        return outputs

    @contextlib.contextmanager
    def _preparing(self) -> Iterator[None]:
        """A node is made or let go: no message's time, and the runner can see that."""
        self.lease.alarm.unguard()
        sign = keys.warming(self.lease.owner)
        self.client.set(sign, 1, px=keys.WARMING_TTL)
        self.lease.warming = True
        try:
            yield
        finally:
            self.lease.warming = False
            self.client.delete(sign)

    def _interrupted(self, entry: Entry, reason: str, waited: float, ran: float) -> None:
        with self._preparing():
            self.instance.destroy()  # it was left in the middle; the next message gets a fresh one
        if reason == "timeout":
            text = f"{self.record.timeout} s exceeded"
            logger.warning("%s", text)
            self.outbox.add(self._failure(entry, "timeout", "NodeTimeout", text, "", waited, ran))

    def _failure(
        self, entry: Entry, kind: str, name: str, text: str, traceback: str = "", waited: float = 0.0, ran: float = 0.0
    ) -> Answer:
        body = codec.encode_value({"kind": kind, "type": name, "text": text, "traceback": traceback})
        return Answer(entry, FAILURE, waited, ran, "", body)

    # -- results ----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Publish what is done."""
        self.lease.alarm.unguard()
        if self.outbox.waiting and not self.outbox.flush(self.client):
            self.lease.state = "over"

    def _pause_while_full(self) -> None:
        """Wait while the runner is behind with reading."""
        if self.outbox.full:
            self._flush()
        while self.outbox.full and not self._must_stop(0.0):
            time.sleep(0.01)
            self.outbox.look(self.client)

    def release(self, *, force: bool) -> bool:
        """Let go of the bell; False, and still held, if an entry waits that nobody was given, unless ``force``."""
        self.keeper.remove(self.lease)  # it would take the bell again
        if self.mailbox.release(self.client, self.lease.slot, self.lease.owner, force=force):
            return True
        self.keeper.add(self.lease)
        return False

    def hand_back(self, token: str) -> bool:
        """Turn the bell into a rung one for the activation that comes next; False when it was lost."""
        self.keeper.remove(self.lease)
        return self.mailbox.hand_back(self.client, self.lease.slot, self.lease.owner, token)
