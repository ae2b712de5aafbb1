"""A node at work in a worker: messages are handed to it one way, with its timeout, and what comes out is encoded."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence

from celerypipe import codec
from celerypipe.catalogue.capture import Recorder, captured
from celerypipe.catalogue.instance import Instance, brief, trace
from celerypipe.codec import Content
from celerypipe.errors import CelerypipeError, CodecError, ConfigError, NodeFailed
from celerypipe.mailbox import hints
from celerypipe.mailbox.blob.blob import Store, Stowed
from celerypipe.mailbox.failure import failure
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.record import Record
from celerypipe.message.files import Origin
from celerypipe.message.message import Message
from celerypipe.process.log import at_work
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.worker.activation.alarm import Alarm, Given, Interrupted, Returned
from celerypipe.worker.activation.keeper import Lease

logger = logging.getLogger(__name__)

#: Nodes that take longer than this, in seconds a message, have a slot each on a worker with several, and are not
#: handed what came out of the node before them.
CHEAP = 0.005


#: Seconds that an instance gets to let go of what it has, after it was interrupted.
LET_GO = 10.0


class Running:
    """A node of a run with its warm instance and the bell that its activation holds for it."""

    def __init__(self, client: Client, lease: Lease, record: Record, instance: Instance) -> None:
        self.client = client
        self.lease = lease
        self.record = record
        self.instance = instance
        self.done = self.failed = 0
        #: Seconds that its instances warmed up so far, which is no message's time.
        self.warmed = 0.0
        #: Nobody knows what the last message did to the instance; whoever runs a stateful node asks, and takes it back.
        self.doubtful = False
        #: What it printed for the message that was handed to it last, as it travels.
        self.printed = b""
        #: The node that gets all that comes out, if this activation serves it too.
        self.next: Running | None = None

    @property
    def name(self) -> str:
        """That of the node."""
        return self.lease.mailbox.node

    @property
    def mean(self) -> float | None:
        """Mean seconds a message takes, as far as its instance knows."""
        return self.instance.mean

    @property
    def runs_on(self) -> bool:
        """May it be handed what comes out of the node before it, without a word to the runner?

        It has to be warm and quick, and an ``update`` that hangs must be able to be interrupted.
        """
        quick = self.mean is not None and self.mean <= CHEAP and self.instance.node is not None
        return quick and self.lease.state == "held" and isinstance(self.lease.alarm, Alarm)

    def spent(self, seconds: float, messages: int) -> None:
        """Note how long a batch took."""
        each = seconds / messages
        mean = self.instance.mean
        self.instance.mean = each if mean is None else 0.7 * mean + 0.3 * each

    def sign(self, message: str = "") -> None:
        """Say in the log what the thread works on; without a message: on what this is about, between two of them."""
        at_work.set((self.lease.mailbox.run, self.name, message))

    def call(self, function: Callable[[Given], Returned], given: Given, name: str) -> Returned:
        """Hand over what is given, to a warm instance and for as long as its timeout says; ``name``: see the alarm."""
        instance = self.instance
        instance.name = self.name  # equal nodes share one
        if instance.node is None:
            began = time.perf_counter()
            try:
                with self.preparing():
                    instance.warm()
            finally:
                self.warmed += time.perf_counter() - began
        else:
            instance.node.name = self.name
        timeout = self.record.timeout
        if timeout is not None:
            self.lease.until = time.monotonic() + timeout
        call = self._recorded if self.record.console else self.lease.alarm.call
        try:
            return call(timeout, function, given, name)
        except ConfigError as error:  # of these messages: the node itself could be made
            raise NodeFailed(f"{self.name}: {error}", node=self.name, remote_traceback=trace(error)) from error
        finally:
            self.lease.until = math.inf

    def _recorded(
        self, timeout: float | None, function: Callable[[Given], Returned], given: Given, name: str
    ) -> Returned:
        """Hand over, and keep what is printed meanwhile, however it ends."""
        recorder = Recorder()
        try:
            with captured(recorder):
                return self.lease.alarm.call(timeout, function, given, name)
        finally:
            self.printed = recorder.console().pack()

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """A node is made or let go: no message's time, and the runner can see that."""
        sign = self.lease.mailbox.names.warming(self.lease.owner)
        self.client.set(sign, 1, px=keys.WARMING_TTL)
        try:
            with self.lease.alarm.switch.patient():
                yield
        finally:
            self.client.delete(sign)

    def let_go(self) -> None:
        """Destroy an instance that was left in the middle of a message; the next message gets a fresh one.

        It may hold a lock that its ``destroy`` waits for, so that is not waited for without end.
        """
        self.doubtful, lease = True, self.lease
        hints.say_freeing(self.client, lease.queues, str(Holder.read(lease.owner).process))
        lease.until = time.monotonic() + LET_GO
        try:
            with self.preparing():
                lease.alarm.call(LET_GO, lambda _: self.instance.destroy(), None)
        except Interrupted as interrupt:
            logger.warning("%s: its destroy() was interrupted too (%s)", self.name, interrupt.reason)
        finally:
            lease.until = math.inf

    def encoded(self, outputs: Sequence[Message], given: Content | None, blob: str, store: Store) -> tuple[Stowed, int]:
        """Encode what came out; return it with its size in bytes.

        Arrays that lie as they are in ``given``, a blob, go on by reference to it.
        """
        result = codec.encode_apart(outputs, memoryview(given) if given is not None else None)
        for file in result.files:
            if isinstance(file.place, Origin):
                raise CodecError(
                    f"the file {file.name!r} was made on this worker, and files travel there; send its bytes: "
                    "pathlib.Path(it).read_bytes()"
                )
        size = len(result.head) + result.size
        if result.borrowed:
            return Stowed(result.head, blob, []), size
        return store.stow(result, self.record.compression), size

    def failure(self, error: BaseException) -> bytes:
        """Say in the log, and return for the runner, what an ``update`` raised."""
        logger.warning("%s", brief(error), exc_info=not isinstance(error, CelerypipeError))
        kind = "codec" if isinstance(error, CodecError) else "failed"
        if isinstance(error, ConfigError) and self.record.configuration is not None:  # a call fails by itself, no run
            kind = "config"
        return failure(kind, type(error).__name__, brief(error), trace(error))

    def late(self) -> bytes:
        """Say in the log, and return for the runner, that the time of a message is over."""
        text = f"{self.record.timeout} s exceeded"
        logger.warning("%s", text)
        return failure("timeout", "NodeTimeout", text)
