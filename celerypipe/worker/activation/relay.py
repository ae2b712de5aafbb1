"""A message that passes several nodes in one go: what comes out of one is handed to the next in the same process.

It is still one message of one mailbox, and it is answered once, for all of them: if the process dies on the way, it is
run again from there, the first node by itself. While a node on the way takes long, the keeper thread tells the runner
how far the message got, so that the node's own timeout counts from then on and not that of the first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from celery.exceptions import WorkerShutdown, WorkerTerminate

from celerypipe import codec
from celerypipe.codec import Content
from celerypipe.mailbox import onward
from celerypipe.mailbox.blob.blob import Store, Stowed
from celerypipe.mailbox.onward import AT_WORK, Step, Steps
from celerypipe.mailbox.wire import FAILURE, NOTE, RESULT, Answer
from celerypipe.message.message import Message, stamped
from celerypipe.redis import keys
from celerypipe.redis.connection import Command
from celerypipe.worker.activation.alarm import Interrupted
from celerypipe.worker.activation.keeper import TICK
from celerypipe.worker.activation.running import Running

#: Seconds that one message may go on before the rest of it is left to the runner, which may have more workers.
GO_ON = 0.020
#: Messages that one update may bring out and that still go on.
GO_ON_MOST = 64
#: Seconds that a node is at work on its way before the runner is told.
TELL_AFTER = 0.010
#: Seconds that must be left of the time of the first node. The runner hears that another one is at work up to a second
#: late; and never, if that one ends the process: somebody has to find out that it is dead, and whose fault that was.
PATIENT = keys.HEARTBEAT_TTL / 1000 + 2 * TICK


class Unwanted(Exception):
    """Nobody waits for this message any more; ``reason``: why it was interrupted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Halt(NamedTuple):
    """One node on the way: what came out, how many messages, and what became of the first of them."""

    ran: float
    blob: str
    data: bytes
    outputs: int
    steps: Steps = ()
    console: bytes = b""


class Stage(NamedTuple):
    """How far a message is: the nodes that are through with it, and since when the one after them is at work."""

    halts: tuple[Halt, ...]
    since: float


class Relay:
    """Takes the answer of one node on its way; ``content`` is the blob of the message it was made from."""

    def __init__(self, answer: Answer, content: Content | None, store: Store, name: str) -> None:
        self._answer = answer
        self._content = content
        self._store = store
        self._name = name
        self._storing: list[Command] = list(answer.storing)
        #: Bytes of what came out of the nodes on the way.
        self.size = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        # What the keeper thread reads, and that it is about to tell it: from then on nothing more may begin, since the
        # runner counts the time of the node it was told of.
        self._stage: Stage | None = None
        self._telling = self._told = False

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._began

    def run(self, head: Running, message: Message) -> Answer:
        """Go on from the first node; return its answer with what became of it. Raises :class:`Unwanted`."""
        answer = self._answer
        steps = self._go_on(head, message, Stowed(answer.data, answer.blob, []), answer.ran)
        self._stage = None  # the keeper may be about to look
        return answer._replace(onward=onward.pack(steps), storing=self._storing)

    def note(self, send: Callable[[Answer], None]) -> None:
        """Send how far it is, once, as an answer that holds if none follows; if ``send`` raises, it was not sent."""
        with self._lock:
            stage = self._stage
            if stage is None or self._told or time.monotonic() - stage.since < TELL_AFTER:
                return
            self._telling = True
        step = Step(AT_WORK)
        for halt in reversed(stage.halts):
            steps = (*halt.steps, step, *[None] * (halt.outputs - len(halt.steps) - 1))
            step = Step(RESULT, halt.ran, halt.blob, halt.data, steps, halt.console)
        send(self._answer._replace(kind=NOTE, onward=onward.pack(step.onward), storing=list(self._storing)))
        self._told = True

    def _begins(self, halts: tuple[Halt, ...]) -> bool:
        """The node after these begins, unless the runner was told of another one: it might not hear of this in time."""
        with self._lock:
            if not self._telling:
                self._stage = Stage(halts, time.monotonic())
            return not self._telling

    def _go_on(
        self, node: Running, parent: Message, result: Stowed, ran: float, before: tuple[Halt, ...] = ()
    ) -> Steps:
        """Hand what came out of a node to the next one; none: that is left to the runner."""
        following = node.next
        if following is None or not following.runs_on or len(before) == onward.MOST:
            return ()
        messages = self._messages(result)
        if not 0 < len(messages) <= GO_ON_MOST:
            return ()
        halt = Halt(ran, result.blob, result.data, len(messages), console=node.printed)
        for message in messages:
            halts = (*before, halt)
            handed = following.runs_on and self.seconds < GO_ON and self._begins(halts)
            step = self._step(following, stamped(message, node.name, parent), result.blob, halts) if handed else None
            halt = halt._replace(steps=(*halt.steps, step))
        return halt.steps if any(halt.steps) else ()

    def _messages(self, result: Stowed) -> list[Message]:
        """What came out, as the next node gets it; none if that would have to be fetched, or cannot be read."""
        if result.blob and (result.blob != self._answer.entry.blob or not result.data):
            return []
        try:
            return codec.decode(result.data, self._content) if result.blob else codec.decode(result.data)
        except Exception:  # noqa: BLE001  # whoever reads it next says what is wrong with it
            return []

    def _step(self, node: Running, message: Message, blob: str, halts: tuple[Halt, ...]) -> Step:
        node.sign(message.id)
        node.printed = b""
        start = time.perf_counter()
        try:
            outputs = node.call(node.instance.update, message, self._name)
            ran = time.perf_counter() - start
            result, size = node.encoded(outputs, self._content if blob else None, blob, self._store)
        except Interrupted as interrupt:
            node.let_go()
            if interrupt.reason != "timeout":
                raise Unwanted(interrupt.reason) from interrupt
            return self._failed(node, node.late(), start)
        except (WorkerShutdown, WorkerTerminate):
            raise  # Celery's own, out of its signal handlers
        except BaseException as error:  # noqa: BLE001  # what user code raises, sys.exit too, fails this message
            return self._failed(node, node.failure(error), start)
        finally:
            node.done += 1
            node.spent(time.perf_counter() - start, 1)  # also what fails slowly makes a node slow
        self._storing += result.storing
        self.size += size
        onward = self._go_on(node, message, result, ran, halts)
        return Step(RESULT, ran, result.blob, result.data, onward, node.printed)

    def _failed(self, node: Running, said: bytes, start: float) -> Step:
        node.failed += 1
        return Step(FAILURE, time.perf_counter() - start, data=said, console=node.printed)
