"""What becomes of a message that a node failed over: tried again, or given up as its ``on_error`` says."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

from celerypipe.catalogue.instance import brief, trace
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import CelerypipeError, CircuitOpen, CodecError, NodeError, NodeFailed, NoWorker
from celerypipe.message.message import Message
from celerypipe.runner.folder.letter import name_of
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.tally import Tally

logger = logging.getLogger(__name__)

#: What becomes of a message that a node gives up, by its ``on_error``.
FATES = {"stop": "failed", "skip": "skipped", "dead_letter": "dead_letter"}


class Failures:
    """Decides for one node of a run, and counts in its tally."""

    def __init__(self, course: Course, node: NodeDefinition, tally: Tally) -> None:
        self.course = course
        self.node = node
        self.tally = tally

    @property
    def fate(self) -> str:
        """What becomes of a message that it gives up, for who counts them."""
        return FATES[self.node.on_error]

    def judge(self, message: Message | None, error: BaseException, attempt: int) -> float | None:
        """Decide about a failed attempt: seconds to wait before the next one, or None: give the message up."""
        kind = error.kind if isinstance(error, NodeError) else "failed"
        self.tally.failed[kind] += 1
        if message is not None:
            self.course.traces.failed(self.node.name, message, error)
        again = None
        if attempt < self.node.retries and not isinstance(error, CircuitOpen):
            self.tally.retried += 1
            again = float(self.node.warp_configuration.backoff * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, no secret
        if self.course.watchers:
            self.course.tell("attempt_failed", self.node.name, message, error, again)
        return again

    def remembered(self, message: Message, error: NodeError) -> None:
        """Note that a message fails, as is known from before."""
        self.tally.failed[error.kind] += 1
        if self.course.watchers:
            self.course.tell("attempt_failed", self.node.name, message, error, None)

    def give_up(self, message: Message, error: BaseException, attempt: int, **more: str) -> None:
        """Do as ``on_error`` says: ``stop`` ends the run, ``skip`` counts, ``dead_letter`` keeps the message.

        ``attempt``: the number of the last one, -1 if there was none; ``more``: as of :meth:`bury`.
        """
        self.course.hide(error)
        if self.node.on_error != "dead_letter" and self.course.replayed is not None:
            self.course.replayed.stays(message)
        if self.node.on_error == "stop":
            self.course.fail(error)
        elif self.node.on_error == "skip":
            self.tally.skipped += 1
            self._say_of(message, "skipped", error)
        else:
            self.bury(message, error, attempt, **more)

    def _say_of(self, message: Message, what: str, error: BaseException) -> None:
        whose = self.course.whose(self.node.name, message)
        logger.warning("%s: message %s %s: %s", self.node.name, message.id, what, self._words_of(error), extra=whose)

    def _words_of(self, error: BaseException) -> str:
        """What went wrong, without the node's name in front, and where."""
        text = str(error).removeprefix(f"{self.node.name}: ")
        worker = error.worker if isinstance(error, NodeError) else ""
        return f"{text} (worker {worker})" if worker else text

    def bury(self, message: Message, error: BaseException, attempt: int, **more: str) -> None:
        """Keep a message that is given up; ``more``: fields of its letter, see there. An empty one is none."""
        self.course.hide(error)
        self.tally.dead += 1
        self._say_of(message, "is a dead letter", error)
        if self.course.folder is None:
            return
        why = {
            "error": type(error).__name__,
            "text": str(error),
            "attempts": attempt + (not isinstance(error, NoWorker)),
            "worker": getattr(error, "worker", ""),
            "traceback": getattr(error, "remote_traceback", ""),
            "run": self.course.run_id,
            "pipeline": self.course.pipeline,
            **{name: text for name, text in more.items() if text},
        }
        earlier: Sequence[str] = ()
        if (progress := self.course.progress) is not None:
            why["key"], earlier = progress.key(f"dead_letters/{self.node.name}", message), progress.earlier
        kept = False
        try:
            kept = self.course.folder.letters.keep(self.node.name, message, why, earlier=earlier)
        except OSError as trouble:
            self.course.say(f"{self.node.name}: the dead letter {message.id} cannot be written: {trouble}")
        if self.course.replayed is not None:
            if kept:  # one that died where it died before is that letter again
                self.course.replayed.remove(name_of(message.id, self.node.name), message)
            else:
                self.course.replayed.stays(message)


def as_failure(raised: BaseException, name: str, message: Message | None) -> BaseException:
    """An exception out of user code as a :class:`NodeFailed` with its cause; an error of this node stays.

    Of no message, so does any other one of ours: a node that cannot be made says so itself.
    """
    if isinstance(raised, NodeError) and raised.node == name:
        return raised
    if message is None and isinstance(raised, CelerypipeError) and not isinstance(raised, CodecError):
        return raised
    failure = NodeFailed(
        f"{name}: {brief(raised)}",
        node=name,
        message_id=message.id if message else "",
        remote_traceback=trace(raised),
    )
    failure.__cause__ = raised
    return failure
