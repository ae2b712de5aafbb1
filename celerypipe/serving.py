"""One warped node as an activation serves it: its bell, its warm instance, its results on their way out."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate

from celerypipe import codec, keys
from celerypipe.blob import INLINE_LIMIT, Content, Store, unpacked
from celerypipe.connection import Client, Command
from celerypipe.errors import CelerypipeError, CodecError, ConfigError
from celerypipe.instance import Instance, Interrupted, brief, trace
from celerypipe.keeper import Lease
from celerypipe.mailbox import FAILURE, LOST_BLOB, RESULT, Answer, Entry, Mailbox
from celerypipe.message import Message
from celerypipe.outbox import Outbox

logger = logging.getLogger(__name__)

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
    """What a runner wrote about a warped node: limits in seconds, ``room`` in replies.

    ``shared``: large results go into shared memory; ``compression``: how those are packed that do not;
    ``neighbours``: the nodes of the run on the same queue, itself too, upstream ones first.
    """

    mark: str
    configuration: dict[str, Any]
    timeout: float | None
    linger: float
    slice: float
    term: float
    room: int
    budget: int
    shared: bool = False
    parallel: int | None = None
    neighbours: tuple[str, ...] = ()
    compression: str = "none"

    @classmethod
    def read(cls, data: bytes) -> Record:
        """Decode it; :class:`CodecError` when it is of another version."""
        return cls(**codec.decode_value(data))

    @property
    def key(self) -> str:
        """What an instance is known by on the shelf: mark and configuration."""
        return f"{self.mark} {sorted(self.configuration.items())!r}"


class Serving:
    """A node that is served: hands messages to its instance and keeps the results until they are published."""

    def __init__(self, client: Client, lease: Lease, record: Record, instance: Instance) -> None:
        self.client = client
        self.lease = lease
        self.record = record
        self.instance = instance
        self.mailbox: Mailbox = lease.mailbox
        self.outbox = lease.outbox = Outbox(lease.mailbox, lease.owner, room=record.room, budget=record.budget)
        self.done = 0
        #: What it works on was taken over from an activation that may not know yet: its memory must not be reused.
        self.taking_over = False

    @property
    def mean(self) -> float | None:
        """Mean seconds a message takes, as far as its instance knows."""
        return self.instance.mean

    def spent(self, seconds: float, messages: int) -> None:
        """Note how long a batch took."""
        each = seconds / messages
        mean = self.instance.mean
        self.instance.mean = each if mean is None else 0.7 * mean + 0.3 * each

    def claimed(self, entry: Entry, lone_attempts: int) -> bool:
        """Count one more try at a message whose process died; False: it was given up instead."""
        name = keys.attempts(self.mailbox.run, self.mailbox.node)
        tried = self.client.hincrby(name, str(entry.sequence), 1)
        self.client.pexpire(name, keys.DATA_TTL)
        if tried <= lone_attempts:
            return True
        text = f"the process that ran it died {tried} times"
        self.outbox.add(self._failure(entry, "lost", "WorkerLost", text))
        return False

    def handle(self, entry: Entry, content: Content | None, store: Store, offset: float) -> None:
        """Run one message; ``content``: that of its blob, None when it is gone; ``offset``: Redis' clock less ours."""
        if entry.blob and content is None:
            self.outbox.add(Answer(entry, LOST_BLOB, 0.0, 0.0, "", b""))
            return
        waited = max(0.0, time.time() + offset - int(entry.id.partition("-")[0]) / 1000)
        start = time.perf_counter()
        self.lease.current = entry.id
        try:
            content = unpacked(entry.blob, content)
            (message,) = codec.decode(entry.data, content) if entry.data else codec.decode(content or b"")
            at_work.set(f"run {self.mailbox.run} node {self.mailbox.node} message {message.id}: ")
            outputs = self._update(message)
            ran = time.perf_counter() - start
            self._keep(entry, outputs, content, store, (waited, ran))
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

    def _keep(
        self,
        entry: Entry,
        outputs: list[Message],
        content: Content | None,
        store: Store,
        times: tuple[float, float],
    ) -> None:
        """Encode a result. Arrays that lie in the input's blob as they are go on by reference to that blob."""
        kept: Callable[[], object] = bool  # its answer is not None: who knows
        if isinstance(content, memoryview) and not self.taking_over:
            kept = weakref.ref(content.obj)
        given = memoryview(content) if entry.data and content is not None else None
        result = codec.encode_apart(outputs, given)
        size = len(result.head) + result.size
        commands: list[Command] = []
        reference, data = "", b""
        if result.borrowed:
            reference, data = entry.blob, result.head
        elif size <= INLINE_LIMIT:
            data = result.joined()
        else:
            self.lease.alarm.unguard()
            apart = len(result.head) <= INLINE_LIMIT
            data = result.head if apart else b""
            reference, commands = store.put(result.body if apart else [result.joined()], self.record.compression)
        self.outbox.add(Answer(entry, RESULT, *times, reference, data, commands, kept), size)

    def _update(self, message: Message) -> list[Message]:
        if self.instance.node is None:
            with self._preparing():
                self.instance.warm()
        outputs: list[Message] = self.lease.alarm.call(
            self.record.timeout, self.instance.update, message, self.lease.at_work
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
