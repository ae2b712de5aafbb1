"""Nodes that run here: each in a daemon thread of its own, so that a hung one cannot keep the process alive."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from celerypipe.cache.node import NodeCache
from celerypipe.catalogue.capture import Recorder, captured, here
from celerypipe.catalogue.instance import Instance
from celerypipe.contract.contract import Sink
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import NodeError, NodeTimeout
from celerypipe.mailbox.orders import Order
from celerypipe.message.message import Message, stamped
from celerypipe.message.ownership import own, sealed
from celerypipe.process.log import at_work
from celerypipe.runner.stations.abandoned import Abandoned
from celerypipe.runner.stations.backlog import BYTES, MESSAGES, Backlog
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.failures import as_failure
from celerypipe.runner.stations.lookahead import Lookahead
from celerypipe.runner.stations.ordered import Ordered, Pending
from celerypipe.runner.stations.places import Places, has_places
from celerypipe.runner.stations.renewal import renewed, restarted
from celerypipe.runner.stations.station import REPLAY, Full, Station

MakeInstance = Callable[[], Instance]

#: What to do with a node that hangs again and again.
CURE = 'warp it ("warped": true) to a worker with a prefork pool, where a process that hangs is ended'


@dataclass(slots=True)
class Turn:
    """What a thread of a local node works on. A turn that was abandoned (its time was over) is nobody's any more."""

    message: Message | None = None
    attempt: int = 0
    since: float = 0.0
    abandoned: bool = False
    recorder: Recorder | None = None


class LocalStation(Station):
    """A proc or sink in the runner's own process. ``cache``: where its results are looked up and kept, if they are."""

    def __init__(
        self, course: Course, node: NodeDefinition, make: MakeInstance, cache: NodeCache | None = None
    ) -> None:
        super().__init__(course, node)
        self._make = make
        self.instance = make()
        self._inbox: Backlog[tuple[str, Message]] = Backlog()
        self._ready: deque[Message] = deque()
        self._cache = cache
        self._lookahead = Lookahead(self, self._inbox, cache) if cache is not None else None
        #: A message is needed as it came after the node had it: to try again, as a dead letter, to remember its result.
        self._keeps = cache is not None or node.retries > 0 or node.on_error == "dead_letter"
        self._turn = Turn()
        #: A message was taken out, and is neither through nor given up: another attempt may be due.
        self._working = False
        #: Its code was edited: it is made anew before its next message.
        self._edited = False
        self._orders = Ordered(self._restarted, self.changed)
        self._key = ""
        #: Is what is worked on a dead letter of this node?
        self._letter = False
        self._thread: threading.Thread | None = None
        self._abandoned = Abandoned(course, self.name, CURE)

    def prepare(self) -> None:
        self._warm(self.instance)
        if has_places(self.instance.listing.node):
            progress = self.course.progress
            record = progress.record(f"{self.name}.places") if progress else None
            self.places = Places(self.name, self._sink, self.course.taken, record)

    def _sink(self) -> Sink:
        node = self.instance.node
        assert isinstance(node, Sink)  # noqa: S101  # asked when it was made
        return node

    def _warm(self, instance: Instance) -> None:
        if self.course.progress is not None:
            instance.record = self.course.progress.record(self.name)
        self.warm_up(instance)

    def discard(self) -> None:
        self.instance.destroy()

    def renew(self) -> None:
        """Make the node anew before its next message; its code was edited, and is imported."""
        self._edited = True  # first: what is asked of the cache as the new code is, that computes
        if self._cache is not None:
            self._cache.renew()

    def ordered(self, order: Order) -> Pending:
        """Have an order done between two messages, also while there are none."""
        return self._orders.put(order)

    def obey(self) -> None:
        if self._orders:
            self.instance = self._orders.obey(self.instance)
            if self._lookahead is not None:
                self._lookahead.renew()

    def _restarted(self, instance: Instance) -> Instance:
        return restarted(instance, self._warm, self.course.say)

    def next_batch(self, sources: dict[str, list[Message]]) -> dict[str, list[int]]:
        """Ask the node which messages it wants now."""
        chosen: dict[str, list[int]] = self.instance.warm().next_batch(sources)  # type: ignore[attr-defined]
        return chosen

    def start(self) -> None:
        self._start(self._turn, self.instance)

    def _start(self, turn: Turn, instance: Instance, again: tuple[Message, int] | None = None) -> None:
        self._thread = self.course.spawn(self.name, self._live, turn, instance, again)

    def _waiting(self) -> int:
        """How many messages wait in here."""
        return len(self._inbox) + (len(self._lookahead) if self._lookahead is not None else 0)

    def has_room(self, count: int) -> bool:
        if self._waiting() + count > MESSAGES:
            return False
        return self._inbox.bytes + (self._lookahead.bytes if self._lookahead is not None else 0) < BYTES

    @property
    def in_hand(self) -> int:
        return self._waiting() + len(self._ready) + self._working

    @property
    def unseen(self) -> int:
        return len(self._inbox) + self.at_door

    def offer(self, link: str, message: Message, *, full: Full = "wait") -> bool:
        self.course.traces.came(self.name, message)
        with self.changed:
            if not self.wait_for_room(lambda: not self.has_room(1), full):
                return False
            self._inbox.add((link, message), message)
            self.changed.notify_all()
        return True

    def check(self, now: float) -> None:
        turn, timeout = self._turn, self.node.timeout
        if timeout is None or turn.message is None or now - turn.since <= timeout:
            return
        with self.changed:
            message, attempt, spent = turn.message, turn.attempt, now - turn.since
            if message is None or turn.abandoned or spent <= timeout:
                return
            turn.abandoned = True
            self._turn, thread = Turn(), self._thread
        error = NodeTimeout(
            f"{self.name}: {timeout} s exceeded ({spent:.1f} s running here)", node=self.name, message_id=message.id
        )
        self._tell(turn, message, error)
        delay = self._judge(message, error, attempt)
        self._abandoned.add(thread)
        if not self.course.over.is_set():
            again = (message, attempt + 1) if delay is not None else None
            self.course.spawn(self.name, self._replace, again, delay or 0.0)

    def _replace(self, again: tuple[Message, int] | None, delay: float) -> None:
        """A fresh node in a fresh thread takes over from one that hangs."""
        if self.course.over.wait(delay):
            return
        try:
            instance = self._make()
            instance.follow(self.instance)
            self._warm(instance)
        except BaseException as error:  # noqa: BLE001  # without a node the run cannot go on
            self.course.fail(as_failure(error, self.name, None))
            return
        self.instance = instance
        self._start(self._turn, instance, again)

    def close(self) -> None:
        super().close()
        if self._lookahead is not None:
            self._lookahead.close()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _live(self, turn: Turn, instance: Instance, again: tuple[Message, int] | None) -> None:
        try:
            if again:
                self._work(turn, instance, *again)
            while not turn.abandoned and (message := self._next()) is not None:
                self.obey()
                instance = self.instance
                if self._edited:
                    instance = self._renewed(instance)
                self._work(turn, instance, message, 0)
        except BaseException as error:  # noqa: BLE001  # a join that cannot go on, or a defect: never a hang
            self.course.fail(as_failure(error, self.name, None))
        finally:
            instance.destroy()
        if not turn.abandoned and not self.course.over.is_set():
            self.finish()

    def _renewed(self, instance: Instance) -> Instance:
        self._edited = False
        self.instance = renewed(instance, self._make, self._warm, self.course.say)
        if self._lookahead is not None:
            self._lookahead.renew()
        return self.instance

    def _next(self) -> Message | None:
        """The next input, or None at the end."""
        if self._lookahead is not None:
            return self._lookahead.next()
        while not self._ready:
            with self.changed:
                while not self._inbox and not self._orders:
                    if self.ended or self.course.over.is_set():
                        return None
                    self.changed.wait(0.5)
            self.obey()
            with self.changed:
                if not self._inbox:
                    continue
                link, message = self._inbox.take()
                self.changed.notify_all()
            self.received(message)
            self._letter = link == REPLAY
            self._ready.extend((message,) if self._letter else self.joined(link, message))
        return None if self.course.over.is_set() else self._ready.popleft()

    def _work(self, turn: Turn, instance: Instance, message: Message, attempt: int) -> None:
        if not attempt and self.node.type == "sink" and not self._may_go(message):
            return
        self._working = True
        if self.course.recording is not None and not attempt:
            self.course.recording.came(self.name, message)
        while True:
            with self.changed:
                turn.attempt, turn.since, turn.message = attempt, time.monotonic(), message
                turn.recorder = Recorder() if self.node.console else None
            error: BaseException | None = None
            outputs: list[Message] = []
            at_work.set((self.course.run_id, self.name, message.id))
            try:
                with captured(turn.recorder):
                    outputs = self._sent(self._update(instance, message), message)
            except BaseException as raised:  # noqa: BLE001  # what user code raises, sys.exit too, is judged by on_error
                error = as_failure(raised, self.name, message)
            with self.changed:
                if turn.abandoned:
                    return
                turn.message = None
            self.tally.running.add(time.monotonic() - turn.since)
            self._tell(turn, message, error)
            if error is None:
                ran = time.monotonic() - turn.since
                self.course.traces.through(self.name, message, "done", sent=turn.since, times=(0.0, 0.0, ran))
                if self.course.recording is not None:
                    self.course.recording.made(self.name, message, outputs)
                if self._lookahead is not None:
                    self._lookahead.computed(outputs, time.monotonic() - turn.since)
                if self.course.watchers:
                    self.course.tell("message_done", self.name, message, time.monotonic() - turn.since)
                self._working = False  # from here on what came out is counted where it waits
                self.hand_on(outputs, message)
                self.course.left(message)
                return
            delay = self._judge(message, error, attempt)
            if delay is None or self.course.over.wait(delay):
                return
            attempt += 1

    def _may_go(self, message: Message) -> bool:
        """Give a sink's message its key and its place; False: another one has that, and this one is given up."""
        if self.course.progress is not None:
            self._key = self.course.progress.key(self.name, message)
        refused = self.places.refusal(message, self._key, letter=self._letter) if self.places is not None else None
        if refused is not None:
            self.failures.judge(message, refused, self.node.retries)
            self.failures.give_up(message, refused, -1)
            self.course.left(message)
        return refused is None

    def _judge(self, message: Message, error: BaseException, attempt: int) -> float | None:
        """Return the seconds until the next attempt; None: there is none, and the message is given up."""
        delay = self.failures.judge(message, error, attempt)
        if delay is None:
            self._working = False
            kind = error.kind if isinstance(error, NodeError) else "failed"
            self.course.traces.through(self.name, message, kind)
            if self.course.recording is not None:
                self.course.recording.failed(self.name, message, error)
            self.failures.give_up(message, error, attempt)
            if self._lookahead is not None:
                self._lookahead.gave_up(error)
            self.course.left(message)
        return delay

    def _tell(self, turn: Turn, message: Message, error: BaseException | None) -> None:
        """Give away what was printed, if that was asked for."""
        if turn.recorder is not None:
            console = turn.recorder.console(here())
            if isinstance(error, NodeError):
                error.console = console
            self.printed(message, console, error)

    def _update(self, instance: Instance, message: Message) -> list[Message]:
        given = own(message) if self._keeps else message
        if self._key and isinstance(instance.node, Sink):
            instance.update_once(given, self._key)
            return []
        return instance.update(given)

    def _sent(self, outputs: list[Message], parent: Message) -> list[Message]:
        """Take what came out of its list, and return it stamped, as it was sent: what is kept of it is the node's."""
        outputs.reverse()
        return [sealed(stamped(outputs.pop(), self.name, parent)) for _ in range(len(outputs))]
