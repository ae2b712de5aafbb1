"""A carrier that goes nowhere: warped nodes run in the runner's own process, through the real codec.

What a test sees with ``Runner(local=True)`` is what the wire would do: arrays arrive read-only, tuples stay tuples,
and a payload that cannot travel is refused. ``on_no_worker: local`` ends here too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from celerypipe import codec
from celerypipe.catalogue.capture import Recorder, captured, here
from celerypipe.catalogue.instance import Instance, Produced, update_batch
from celerypipe.errors import CodecError, NodeError, NodeFailed
from celerypipe.mailbox.orders import Order
from celerypipe.message.files import Arrived, File, Here, arriving
from celerypipe.message.message import Message
from celerypipe.runner.stations.abandoned import Abandoned
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.failures import as_failure
from celerypipe.runner.stations.local import MakeInstance
from celerypipe.runner.stations.ordered import Ordered, Pending
from celerypipe.runner.stations.renewal import renewed, restarted
from celerypipe.runner.warp.flight import Done, Flight
from celerypipe.runner.warp.warp import Warp

#: What to do with a node that hangs again and again.
CURE = "run it on a worker with a prefork pool, where a process that hangs is ended"
#: There is nothing to run.
IDLE: tuple[()] = ()


class Loopback:
    """Runs the messages of one warp, one after another, in a daemon thread.

    ``name``: that of its node. ``fetch`` brings a payload here that is elsewhere; None: it is lost.
    """

    def __init__(
        self,
        course: Course,
        name: str,
        make: MakeInstance,
        fetch: Callable[[Message], Message | None] = lambda message: message,
    ) -> None:
        self.course = course
        self.name = name
        self._fetch = fetch
        self._make = make
        self._instance: Instance | None = None
        self._waiting: deque[tuple[Warp, Flight]] = deque()
        self._changed = threading.Condition()
        self._running: list[Flight] = []
        self._since = 0.0
        self._era = 0
        self._edited = False
        self._orders = Ordered(lambda old: restarted(old, self._warm, self.course.say), self._changed)
        #: What was changed, for who takes the place of one that hangs.
        self._before: Instance | None = None
        self._thread: threading.Thread | None = None
        self._abandoned = Abandoned(course, name, CURE)
        self._recorder: Recorder | None = None
        #: Seconds that its node warmed up, until the first message has said so.
        self._warmed = 0.0

    def prepare(self) -> None:
        """Warm the node up before the first message."""
        self._instance = self._warm()

    def _warm(self, instance: Instance | None = None) -> Instance:
        instance, began = instance or self._made(), time.monotonic()
        instance.warm()
        self._warmed = time.monotonic() - began
        return instance

    def _made(self) -> Instance:
        instance = self._make()
        if self._before is not None:
            instance.follow(self._before)
        return instance

    def ordered(self, order: Order) -> Pending:
        """Have an order done between two messages, also while there are none."""
        return self._orders.put(order)

    def renew(self) -> None:
        """Make the node anew before its next message; its code was edited, and is imported."""
        self._edited = True

    def discard(self) -> None:
        """The run could not begin."""
        if self._instance is not None:
            self._instance.destroy()

    def start(self) -> None:
        """Begin."""
        self._thread = self.course.spawn("loopback", self._live, self._era)

    def close(self) -> None:
        """End the thread, which lets go of its node."""
        with self._changed:
            self._changed.notify_all()

    by_reference = False

    def load(self, warp: Warp, flight: Flight, message: codec.Apart) -> None:
        flight.data = None if message.elsewhere is not None else message.joined()
        flight.size = len(message.head) + message.size

    def here(self, message: Message) -> Message | None:
        return message

    def room(self, size: int) -> bool:
        return True

    def slots(self, warp: Warp) -> int:
        return 1

    def is_running(self, flight: Flight) -> bool:
        """Is it in ``update``?"""
        return flight in self._running

    def began(self, warp: Warp, flight: Flight) -> float:
        return flight.due_since or flight.sent_at

    def settled(self, warp: Warp, flight: Flight) -> None:
        """Nothing is kept here."""

    def post(self, warp: Warp, flight: Flight, *, wait: bool = True) -> None:
        with self._changed:
            if flight.storing or flight.blob is not None:  # another carrier loaded it: only its head is in there
                flight.data, flight.storing, flight.blob = None, (), None
            flight.sent_at = time.monotonic()
            self._waiting.append((warp, flight))
            self._changed.notify_all()

    def withdraw(self, warp: Warp, flight: Flight) -> tuple[str, list[Flight]]:
        with self._changed:
            spent = time.monotonic() - (flight.due_since or flight.sent_at)
            if flight not in self._running:
                return f"{spent:.1f} s waiting here", []
            ran = time.monotonic() - self._since
            flight.console = self._recorder.console(here()) if self._recorder is not None else None
            thread = self._thread
            self._era += 1  # the thread that hangs is nobody's any more
            batch = self._running if len(self._running) > 1 else []
            self._running, self._instance = [], None
        self._abandoned.add(thread)
        if not self.course.over.is_set():
            self.start()
        return f"{max(0.0, spent - ran):.1f} s waiting, {ran:.1f} s running here", batch

    def _live(self, era: int) -> None:
        instance = self._instance
        try:
            if instance is None:
                self._instance = instance = self._warm()
            while (batch := self._next(era)) is not None:
                self._instance = instance = self._before = self._orders.obey(instance)
                if batch is IDLE:
                    continue
                if self._edited:
                    self._edited = False
                    self._instance = instance = renewed(instance, self._make, self._warm, self.course.say)
                self._run(era, instance, *batch)
        except BaseException as error:  # noqa: BLE001  # a node that cannot warm up, or a defect: never a hang
            self.course.fail(as_failure(error, self.name, None))
        finally:
            if instance is not None:
                instance.destroy()

    def _next(self, era: int) -> tuple[Warp, list[Flight]] | tuple[()] | None:
        """Take what waits, up to a batch; all of it is of one node. ``IDLE``: there is an order, and no message."""
        with self._changed:
            while not self.course.over.is_set() and era == self._era:
                taken: list[Flight] = []
                size = 1
                while self._waiting and len(taken) < size:
                    warp, flight = self._waiting.popleft()
                    if taken and flight.alone:
                        self._waiting.appendleft((warp, flight))
                        break
                    size = 1 if flight.alone else warp.limits.batches.size
                    if not flight.done:
                        taken.append(flight)
                if taken:
                    self._running, self._since = taken, time.monotonic()
                    return warp, taken
                if self._orders:
                    return IDLE
                self._changed.wait(0.2)
        return None

    def _run(self, era: int, instance: Instance, warp: Warp, flights: list[Flight]) -> None:
        began = time.monotonic()
        self._recorder = recorder = Recorder() if warp.node.console else None
        with captured(recorder):
            outcomes = self._outcomes(instance, warp, flights)
        console = recorder.console(here()) if recorder is not None else None
        with self._changed:
            if era != self._era:
                return
            self._running = []
            if outcomes is None:
                for flight in flights:  # each begins once more
                    flight.alone = True
                    flight.due_since = None if flight.due_since is None else time.monotonic()
                self._waiting.extendleft((warp, flight) for flight in reversed(flights))
                return
        ran = (time.monotonic() - began) / len(flights)
        for flight, outcome in zip(flights, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                error = as_failure(outcome, warp.name, flight.message)
                if isinstance(error, NodeError):
                    error.console = console
                warp.failed(flight, error)
            else:
                warmed, self._warmed = self._warmed, 0.0
                times = ran, began - flight.sent_at
                warp.returned(flight, Done(flight.message, outcome, *times, console=console, warmed=warmed))
            console = None  # nobody knows for which message of a batch: the first one has it
        warp.hand_over()

    def _outcomes(
        self, instance: Instance, warp: Warp, flights: Sequence[Flight]
    ) -> Sequence[list[Message] | BaseException] | None:
        """Run what goes together; None: it raised, so that each is to be run by itself."""
        try:
            given = [self._as_it_travels(warp, flight) for flight in flights]
            single = len(given) == 1
            found: list[Produced] = [instance.update(given[0])] if single else update_batch(instance, given)
        except BaseException as raised:  # noqa: BLE001  # whatever user code raises is judged by on_error
            return [raised] if len(flights) == 1 else None
        return [_returned(outcome) for outcome in found]

    def _as_it_travels(self, warp: Warp, flight: Flight) -> Message:
        data, flight.data = flight.data, None
        if data is not None:
            return _arrived((flight.message,), data)[0]
        message = self._fetch(flight.message)
        if message is None:
            raise NodeFailed(f"{warp.name}: its input is lost", node=warp.name, message_id=flight.message.id)
        return _arrived((message,), codec.encode_joined((message,)))[0]


def _returned(outcome: Produced) -> Produced:
    if isinstance(outcome, Exception):
        return outcome
    try:
        return _arrived(outcome, codec.encode_joined(outcome))
    except CodecError as error:
        return error


def _arrived(sent: Sequence[Message], data: bytes) -> list[Message]:
    """Decode what was sent. A file among it stays where it is, and knows what it came in, so that nobody else must."""

    def find(file: File) -> Here:
        return next(Here(each.path) for each in codec.encode_apart(sent).files if each.digest == file.digest)

    arriving.set(lambda _: Arrived(find))
    return codec.decode(data)
