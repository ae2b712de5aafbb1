"""Where messages come from: a source node, or an iterable that feeds a pipeline from code."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from typing import Any, NamedTuple

from celerypipe.contract.contract import Node, Source
from celerypipe.contract.positions import Position
from celerypipe.contract.readings import Readings
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import ConfigError, NodeError, NodeFailed, NodeTimeout
from celerypipe.message.message import Message, stamped
from celerypipe.message.ownership import sealed
from celerypipe.process import forks
from celerypipe.process.log import at_work
from celerypipe.runner.stations.abandoned import Abandoned
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.failures import as_failure
from celerypipe.runner.stations.local import MakeInstance
from celerypipe.runner.stations.station import Station

#: Seconds a source with a ``stop`` of its own may take to yield what it holds.
STOP_GRACE = 3.0
#: Said of the dead letter of what was to be a message.
UNMADE = "its source could not make it; repair what that reads, and run the pipeline again"
#: Said of what ends the run, and need not.
LEFT_OUT = 'with "on_error": "skip" in this node the run goes on without it'
#: Said of a source that cannot go on.
CUT_SHORT = "the source cannot continue after that: messages that it had not sent are missing"

#: What to do with one that hangs again and again.
CURE = "a source runs here: give what it waits for a timeout of its own, as sockets have one"


class Reading(NamedTuple):
    """One message that is made by itself, and the number of the attempt."""

    make: Callable[[], Any]
    attempt: int = 0


class SourceStation(Station):
    """A source, or an iterable that feeds a pipeline from code."""

    def __init__(
        self, course: Course, node: NodeDefinition, make: MakeInstance | None, feed: Iterable[Message] = ()
    ) -> None:
        super().__init__(course, node)
        self.instance = make() if make else None
        self._feed = feed
        self._count = 0
        #: Says where in the source a message stands, if it can go on there.
        self._position: Callable[[Message], Position | None] | None = None
        self._since: float | None = None
        #: What it is at work on since then, if that is one message by itself: the source can go on without it.
        self._reading: Reading | None = None
        #: Threads that hung in one message and were left behind; what they bring is nobody's.
        self._left = 0
        self._items: Iterator[Any] | None = None
        self._stopped_at = math.inf
        self._thread: threading.Thread | None = None
        self._abandoned = Abandoned(course, self.name, CURE)
        self._total: int | None = None

    def prepare(self) -> None:
        if self.instance is None:
            self._total = len(self._feed) if isinstance(self._feed, Sized) else None
            return
        node = self.warm_up(self.instance)
        self._seek(node)
        if isinstance(node, Source):
            self._total = self._counted(node)

    def _seek(self, node: Node) -> None:
        """Let it leave out what was through before, in a run that goes on from another."""
        progress = self.course.progress
        if progress is None or not isinstance(node, Source) or type(node).seek is Source.seek:
            return
        self._position = node.position
        if progress.earlier:
            try:
                node.seek(progress.through(self.name))
            except ConfigError as error:
                raise ConfigError(f"{self.name}: {error}") from None
            self._count = progress.following(self.name)

    def _counted(self, node: Source) -> int | None:
        """Ask it how many messages it is going to yield; an attribute of that name is its own affair."""
        ask: object = type(node).total
        total = ask(node) if callable(ask) else None
        if total is None or (isinstance(total, int) and not isinstance(total, bool) and total >= 0):
            return total
        raise ConfigError(f"{self.name}: total() returned {total!r}; return how many messages it yields, or None")

    @property
    def total(self) -> int | None:
        """How many messages it yields in this run, if that is known: once it ended, or was told to, it is."""
        ended = self.finished.is_set() or self._stopped
        sent = self.through
        return sent if ended else max(self._total, sent) if self._total is not None else None

    @property
    def through(self) -> int:
        """How many messages it is through with: sent, or given up."""
        return self.tally.sent + self.tally.skipped + self.tally.dead

    def discard(self) -> None:
        if self.instance is not None:
            self.instance.destroy()

    def start(self) -> None:
        self._thread = self.course.spawn(self.name, self._live, self._left)

    @property
    def _stopped(self) -> bool:
        return time.monotonic() >= self._stopped_at

    def drained(self) -> None:
        """A source has no upstream nodes."""

    def stop(self) -> None:
        """Want no more messages. A node with a ``stop`` of its own may still yield what it holds, for a moment."""
        node = self.instance.node if self.instance is not None else None
        listens = isinstance(node, Source) and type(node).stop is not Source.stop
        with self.lock:
            self._stopped_at = time.monotonic() + (STOP_GRACE if listens else 0.0)
        if isinstance(node, Source):
            node.stop()
        self.check(time.monotonic())

    def _leave_behind(self) -> None:
        """The source waits, and nobody waits for it."""
        self.course.forget(self._thread)
        self.finish()

    def check(self, now: float) -> None:
        since, timeout, reading = self._since, self.node.timeout, self._reading
        if self._stopped:
            if since is not None:
                self._leave_behind()
            return
        if timeout is None or since is None or now - since <= timeout:
            return
        with self.lock:
            if self._since != since:
                return  # it came just now
            self._since = self._reading = None
            self._left += reading is not None
        self._abandoned.add(self._thread)
        text = f"{self.name}: {timeout} s exceeded ({now - since:.1f} s since its last message)"
        error = NodeTimeout(text, node=self.name)
        if reading is not None:
            self._thread = self.course.spawn(self.name, self._live, self._left, reading, error)
            return
        self.tally.failed["timeout"] += 1
        self._cut_short(error)
        if self.node.on_error != "stop":
            self._stopped_at = now
            self._leave_behind()

    def _live(self, era: int, reading: Reading | None = None, failed: NodeTimeout | None = None) -> None:
        """Send its messages; ``reading``: from the one that a thread before this one ``failed`` to make in time."""
        at_work.set((self.course.run_id, self.name, ""))
        try:
            with forks.one_process(f"{self.name}: messages()"):
                began = forks.generation
                for found in self._messages(era, reading, failed):
                    if self._stopped or self.course.over.is_set() or forks.generation != began or era != self._left:
                        break
                    if found[0] is not None:
                        self._send(found)
        except BaseException as raised:  # noqa: BLE001  # whatever user code raises ends the source
            error = as_failure(raised, self.name, None)
            self.tally.failed[error.kind if isinstance(error, NodeError) else "failed"] += 1
            self._cut_short(error)
        finally:
            if self.instance is not None and not self._left:  # a thread that hangs may be in there
                self.instance.destroy()
        if era == self._left and not self.course.over.is_set():
            self.finish()

    def _messages(self, era: int, reading: Reading | None, failed: NodeTimeout | None) -> Iterator[list[Any]]:
        """Its messages, each by itself in a list, or None in the place of one that was given up.

        Who takes it out of the list has all of it, but for what the source keeps.
        """
        node = self.instance.node if self.instance is not None else None
        if reading is not None and failed is not None and (again := self._again(reading, failed)) is not None:
            yield [self._made(era, again)]
        if self._items is None:
            self._items = iter(node.messages() if isinstance(node, Source) else self._feed)
        messages = self._items
        apart = messages if isinstance(messages, Readings) else None
        items: Iterator[Any] = messages if apart is None else apart.items
        while self._begins(era):
            found: list[Any] = []
            try:
                found.append(next(items))
            except StopIteration:
                return
            finally:
                self._since = None
            if apart is not None:
                yield [self._made(era, Reading(partial(apart.make, found.pop())))]
            elif isinstance(found[0], Message):
                yield found
            else:
                yield [self._made(era, Reading(partial(self._checked, found[0])))]

    def _begins(self, era: int, reading: Reading | None = None) -> bool:
        """It is at work from now on, and has its timeout for that; False: no more is wanted, or not of this thread."""
        with self.lock:
            if self._stopped or era != self._left or self.course.over.is_set():
                return False
            self._since, self._reading = time.monotonic(), reading
        return True

    def _ends(self, era: int) -> bool:
        """It is not any more; False: nobody waited for that."""
        with self.lock:
            if era != self._left:
                return False
            self._since = self._reading = None
        return True

    def _made(self, era: int, reading: Reading) -> Message | None:
        """Make a message; None: it is given up, or nobody wants it any more."""
        wanted: Reading | None = reading
        while wanted is not None and self._begins(era, wanted):
            error: BaseException | None = None
            made: list[Message] = []
            try:
                made.append(self._checked(wanted.make()))
            except BaseException as raised:  # noqa: BLE001  # whatever user code raises is judged by on_error
                error = as_failure(raised, self.name, None)
            if not self._ends(era):
                return None
            if error is None:
                return made.pop()
            wanted = self._again(wanted, error)
        return None

    def _again(self, reading: Reading, error: BaseException) -> Reading | None:
        """Wait until it is to be tried again; None: it is given up."""
        delay = self.failures.judge(None, error, reading.attempt)
        if delay is None:
            self._give_up(error, reading.attempt)
            return None
        self.course.over.wait(delay)
        return Reading(reading.make, reading.attempt + 1)

    def _give_up(self, error: BaseException, attempt: int) -> None:
        """There is no message: one stands for it, and says which one in what became of it."""
        if self.node.on_error == "stop":
            error.args = (f"{error}; {LEFT_OUT}",)
        self.failures.give_up(Message(creator=self.name), error, attempt, not_kept=UNMADE)

    def _checked(self, message: Any) -> Message:
        if not isinstance(message, Message):
            raise NodeFailed(
                f"{self.name}: each has to be a Message, not {type(message).__name__}; write Message(...)",
                node=self.name,
            )
        return message

    def _send(self, found: list[Message]) -> None:
        number = self._count if found[0].sequence < 0 else None
        self._count += 1
        progress = self.course.progress
        try:
            position = self._position_of(found[0])
            # What the source lets go of is nobody's, and need not be copied.
            sent = sealed(stamped(found.pop(), self.name, None, number))
        except BaseException as raised:  # noqa: BLE001  # whatever user code raises over one message is judged by on_error
            error = as_failure(raised, self.name, None)
            self.failures.judge(None, error, self.node.retries)
            self._give_up(error, 0)
            return
        if progress is None or position is None:
            self.hand_on((sent,), None)
            return
        progress.begin(self.name, position, sent.sequence, sent.origin)
        self.hand_on((sent,), None)
        progress.begun(sent.origin)

    def _position_of(self, message: Message) -> Position | None:
        position = self._position(message) if self._position is not None else None
        if not isinstance(position, int | str | None):
            raise NodeFailed(
                f"{self.name}: position() returned a {type(position).__name__}, not a number or a text",
                node=self.name,
            )
        return position

    def _cut_short(self, error: BaseException) -> None:
        """It cannot go on: that is what the run fails of, at once or when all that was sent is out."""
        if self.node.on_error == "stop":
            self.course.fail(error)
            return
        error.args = (f"{error}; {CUT_SHORT}",)
        self.course.say(str(error))
        self.course.fail_at_end(error)
