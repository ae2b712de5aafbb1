"""One warped node as an activation serves it: its bell, its warm instance, its results on their way out."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from celery.exceptions import WorkerShutdown, WorkerTerminate

from celerypipe import codec, keys, signs
from celerypipe.batches import Gathering, Outcome, update_batch
from celerypipe.blob import INLINE_LIMIT, Content, Store, Stowed, unpacked, unstowed
from celerypipe.connection import Client
from celerypipe.errors import CelerypipeError, CodecError, ConfigError
from celerypipe.instance import Instance, Interrupted, Unarmed, brief, trace
from celerypipe.keeper import Lease
from celerypipe.mailbox import FAILURE, LOST_BLOB, RESULT, Answer, Entry, Mailbox
from celerypipe.message import Message
from celerypipe.outbox import Outbox
from celerypipe.shared_memory import watch

logger = logging.getLogger(__name__)

#: An entry with the content of its blob: None when it has none, or when that is gone.
Parcel = tuple[Entry, Content | None]

#: What can be run of it: with its message, and the seconds that it waited.
Opened = tuple[Entry, Content | None, Message, float]

Given = TypeVar("Given")
Found = TypeVar("Found")

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
    ``neighbours``: the nodes of the run on the same queue, itself too, upstream ones first; ``batch``: so many messages
    at once, ``wait`` seconds for them to come.
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
    batch: int = 1
    wait: float = 0.0

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
        self.gathering = Gathering(record.batch, record.wait)
        self._warned = False
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

    def handle(self, parcels: Sequence[Parcel], store: Store, offset: float) -> list[Entry]:
        """Run what goes together; return what is to be run again by itself. ``offset``: Redis' clock less ours."""
        if len(parcels) > 1:
            return self._handle_together(parcels, store, offset)
        self._handle_one(*parcels[0], store, offset)
        return []

    def _handle_one(self, entry: Entry, content: Content | None, store: Store, offset: float) -> None:
        if entry.blob and content is None:
            self.outbox.add(Answer(entry, LOST_BLOB, 0.0, 0.0, "", b""))
            return
        waited, start = _waited(entry, offset), time.perf_counter()
        self.lease.current = entry.id
        try:
            content = unpacked(entry.blob, content)
            message = _opened(entry, content)
            at_work.set(f"run {self.mailbox.run} node {self.mailbox.node} message {message.id}: ")
            outputs = self._call(self.instance.update, message)
            ran = time.perf_counter() - start
            self._keep(entry, outputs, content, store, (waited, ran))
        except Interrupted as interrupt:
            self._interrupted(interrupt.reason, [(entry, waited)], time.perf_counter() - start)
        except (WorkerShutdown, WorkerTerminate):
            raise  # Celery's own, out of its signal handlers
        except BaseException as error:  # noqa: BLE001  # what user code raises, sys.exit too, fails this message
            self._failed(entry, error, waited, time.perf_counter() - start)
        finally:
            self.lease.current = ""
            at_work.set("")
        self.done += 1

    def _handle_together(self, parcels: Sequence[Parcel], store: Store, offset: float) -> list[Entry]:
        opened: list[Opened] = []
        for entry, content in parcels:
            try:
                plain = unpacked(entry.blob, content)
                opened.append((entry, plain, _opened(entry, plain), _waited(entry, offset)))
            except Exception:  # noqa: BLE001  # whatever is wrong with its bytes is wrong with this one only
                self._handle_one(entry, content, store, offset)  # which says what is wrong with it
        if not opened:
            return []
        entries = [entry for entry, *_ in opened]
        start = time.perf_counter()
        outcomes = self._outcomes(opened)
        if outcomes is None:
            self._sign(())
            if self.record.timeout is not None:
                signs.say_anew(self.client, self.lease.owner)
            there = self.mailbox.still(self.client, [entry.id for entry in entries])
            return [entry for entry in entries if entry.id in there]
        # All of them waited for the whole call; what is said is each one's share, since it decides how many are read
        # at a time and for how many slots the runner rings.
        ran = (time.perf_counter() - start) / len(entries)
        for (entry, content, _, waited), outcome in zip(opened, outcomes, strict=False):  # none after a timeout
            if isinstance(outcome, Exception):
                self._failed(entry, outcome, waited, ran)
                continue
            try:
                self._keep(entry, outcome, content, store, (waited, ran))
            except Exception as error:  # noqa: BLE001  # a missing package too: the others have their results
                self._failed(entry, error, waited, ran)
        self.done += len(entries)
        return []

    def _outcomes(self, opened: Sequence[Opened]) -> list[Outcome] | None:
        """Run a batch. None: each is to be run by itself, for one of them made it fail, or was withdrawn meanwhile."""
        entries, messages = [entry for entry, *_ in opened], [message for _, _, message, _ in opened]
        self._sign(entries)
        start = time.perf_counter()
        # The keeper looks after one entry: a batch is interrupted when its first message is withdrawn. The result of
        # another one that is withdrawn meanwhile is refused when it is published.
        self.lease.current = entries[0].id
        others = f" and {len(entries) - 1} others" if len(entries) > 1 else ""
        at_work.set(f"run {self.mailbox.run} node {self.mailbox.node} message {messages[0].id}{others}: ")
        try:
            return self._call(lambda given: update_batch(self.instance, given), messages)
        except Interrupted as interrupt:
            times = [(entry, waited) for entry, _, _, waited in opened]
            return [] if self._interrupted(interrupt.reason, times, time.perf_counter() - start) else None
        except (WorkerShutdown, WorkerTerminate):
            raise  # Celery's own, out of its signal handlers
        except BaseException as error:  # noqa: BLE001  # nobody knows whose fault it is; who fails again says so
            level = logging.DEBUG if self._warned else logging.WARNING
            logger.log(level, "a batch of %d failed, so each is run by itself: %s", len(entries), brief(error))
            self._warned = True
            return None
        finally:
            self.lease.current = ""
            at_work.set("")

    def _sign(self, entries: Sequence[Entry]) -> None:
        """Who cannot be interrupted says what it runs together: all of that is late when one message of it is."""
        if isinstance(self.lease.alarm, Unarmed) and self.record.timeout is not None:
            ids = [entry.id for entry in entries]
            signs.say_together(self.client, self.lease.owner, self.mailbox.node, ids, timeout=self.record.timeout)

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
            kept = watch(content)
        given = memoryview(content) if entry.data and content is not None else None
        result = codec.encode_apart(outputs, given)
        size = len(result.head) + result.size
        if result.borrowed:
            data, reference, commands = Stowed(result.head, entry.blob, [])
        else:
            if size > INLINE_LIMIT:
                self.lease.alarm.unguard()
            data, reference, commands = store.stow(result, self.record.compression)
        self.outbox.add(Answer(entry, RESULT, *times, reference, data, commands, kept), size)

    def _call(self, function: Callable[[Given], Found], given: Given) -> Found:
        if self.instance.node is None:
            with self._preparing():
                self.instance.warm()
        return self.lease.alarm.call(self.record.timeout, function, given, self.lease.at_work)

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

    def _interrupted(self, reason: str, entries: Sequence[tuple[Entry, float]], ran: float) -> bool:
        """Let go of the node; return whether its time was over, which has then been answered."""
        with self._preparing():
            self.instance.destroy()  # it was left in the middle; the next message gets a fresh one
        if reason != "timeout":
            return False
        text = f"{self.record.timeout} s exceeded"
        logger.warning("%s", text)
        for entry, waited in entries:
            self.outbox.add(self._failure(entry, "timeout", "NodeTimeout", text, "", waited, ran))
        return True

    def _failed(self, entry: Entry, error: BaseException, waited: float, ran: float) -> None:
        logger.warning("%s", brief(error), exc_info=not isinstance(error, CelerypipeError))
        kind = "config" if isinstance(error, ConfigError) else "codec" if isinstance(error, CodecError) else "failed"
        text = brief(error)
        self.outbox.add(self._failure(entry, kind, type(error).__name__, text, trace(error), waited, ran))

    def _failure(
        self, entry: Entry, kind: str, name: str, text: str, traceback: str = "", waited: float = 0.0, ran: float = 0.0
    ) -> Answer:
        body = codec.encode_value({"kind": kind, "type": name, "text": text, "traceback": traceback})
        return Answer(entry, FAILURE, waited, ran, "", body)


def _waited(entry: Entry, offset: float) -> float:
    """Return how many seconds a message has been here."""
    return max(0.0, time.time() + offset - int(entry.id.partition("-")[0]) / 1000)


def _opened(entry: Entry, content: Content | None) -> Message:
    if entry.blob and content is None:
        raise CodecError("its blob is gone")
    (message,) = unstowed(entry.data, content)
    return message
