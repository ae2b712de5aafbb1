"""A message that passes several nodes in one go: what comes out of one is handed to the next in the same process.

It is still one message of one mailbox, and it is answered once, for all of them: if the process dies on the way, it is
run again from there, the first node by itself. While a node on the way takes long, the keeper thread tells the runner
how far the message got, so that the node's own timeout counts from then on and not that of the first.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from celery.exceptions import WorkerShutdown, WorkerTerminate

from celerypipe import codec, onward
from celerypipe.blob import Content, Store
from celerypipe.connection import Command
from celerypipe.instance import Interrupted
from celerypipe.keeper import TICK
from celerypipe.mailbox import FAILURE, NOTE, RESULT, Answer
from celerypipe.message import Message, stamped
from celerypipe.onward import AT_WORK, Step, Steps
from celerypipe.running import Encoded, Running

#: Seconds that one message may go on before the rest of it is left to the runner, which may have more workers.
GO_ON = 0.020
#: Messages that one update may bring out and that still go on.
GO_ON_MOST = 64
#: Seconds that a node is at work on its way before the runner is told.
TELL_AFTER = 0.010
#: From a node with a shorter timeout nothing goes on: it might be over before the runner hears that another is at work.
PATIENT = 2 * TICK


class Unwanted(Exception):
    """Nobody waits for this message any more."""


class Halt(NamedTuple):
    """One node on the way: what came out, how many messages, and what became of the first of them."""

    kind: bytes
    ran: float
    blob: str
    data: bytes
    outputs: int
    steps: Steps = ()


class Relay:
    """Takes the answer of one node on its way; ``content`` is the blob of the message it was made from."""

    def __init__(self, answer: Answer, content: Content | None, store: Store, name: str) -> None:
        self._answer = answer
        self._content = content
        self._store = store
        self._name = name
        self._storing: list[Command] = list(answer.storing)
        self._began = self._since = time.monotonic()
        # Replaced and never changed: the keeper thread reads it.
        self._halts: tuple[Halt, ...] = ()
        self._told = False

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._began

    def run(self, head: Running, message: Message) -> Answer:
        """Go on from the first node; return its answer with what became of it. Raises :class:`Unwanted`."""
        answer = self._answer
        steps = self._go_on(head, message, Encoded(answer.blob, answer.data, (), 0), answer.ran)
        return answer._replace(onward=onward.pack(steps), storing=self._storing)

    def note(self) -> Answer | None:
        """Return how far it is, as an answer that holds if none follows; None if there is nothing to tell."""
        halts = self._halts
        if self._told or not halts or time.monotonic() - self._since < TELL_AFTER:
            return None
        self._told = True
        step = Step(AT_WORK)
        for halt in reversed(halts):
            steps = (*halt.steps, step, *[None] * (halt.outputs - len(halt.steps) - 1))
            step = Step(halt.kind, halt.ran, halt.blob, halt.data, steps)
        return self._answer._replace(kind=NOTE, onward=onward.pack(step.onward), storing=list(self._storing))

    def _go_on(self, node: Running, parent: Message, result: Encoded, ran: float) -> Steps:
        """Hand what came out of a node to the next one; none: that is left to the runner."""
        following, blob = node.next, self._answer.entry.blob
        if following is None or not following.runs_on or len(self._halts) == onward.MOST:
            return ()
        if result.blob and (result.blob != blob or not result.data):
            return ()
        messages = codec.decode(result.data, self._content) if result.blob else codec.decode(result.data)
        if not 0 < len(messages) <= GO_ON_MOST:
            return ()
        before = self._halts
        halt = Halt(RESULT, ran, result.blob, result.data, len(messages))
        for message in messages:
            self._halts = (*before, halt)
            handed = following.runs_on and self.seconds < GO_ON
            step = self._step(following, stamped(message, node.name, parent), result.blob) if handed else None
            halt = halt._replace(steps=(*halt.steps, step))
        self._halts = before
        return halt.steps if any(halt.steps) else ()

    def _step(self, node: Running, message: Message, blob: str) -> Step:
        self._since, self._told = time.monotonic(), False
        node.sign(message.id)
        start = time.perf_counter()
        try:
            outputs = node.call(node.instance.update, message, self._name)
            ran = time.perf_counter() - start
            result = node.encoded(outputs, self._content if blob else None, blob, self._store)
        except Interrupted as interrupt:
            node.let_go()
            if interrupt.reason != "timeout":
                raise Unwanted from interrupt
            return Step(FAILURE, time.perf_counter() - start, data=node.late())
        except (WorkerShutdown, WorkerTerminate):
            raise  # Celery's own, out of its signal handlers
        except BaseException as error:  # noqa: BLE001  # what user code raises, sys.exit too, fails this message
            return Step(FAILURE, time.perf_counter() - start, data=node.failure(error))
        finally:
            node.done += 1
        node.spent(ran, 1)
        self._storing += result.storing
        return Step(RESULT, ran, result.blob, result.data, self._go_on(node, message, result, ran))
