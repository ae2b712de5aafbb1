"""A carrier that goes nowhere: warped nodes run in the runner's own process, through the real codec.

What a test sees with ``Runner(local=True)`` is what the wire would do: arrays arrive read-only, tuples stay tuples,
and a payload that cannot travel is refused. ``on_no_worker: local`` ends here too.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from celerypipe import codec
from celerypipe.instance import Instance
from celerypipe.local import MakeInstance, as_failure
from celerypipe.message import Message
from celerypipe.station import Course
from celerypipe.warp import Flight, Warp


class Loopback:
    """Runs the messages of one warp, one after another, in a daemon thread."""

    def __init__(self, course: Course, make: MakeInstance) -> None:
        self.course = course
        self._make = make
        self._instance: Instance | None = None
        self._waiting: deque[tuple[Warp, Flight]] = deque()
        self._changed = threading.Condition()
        self._running: Flight | None = None
        self._since = 0.0
        self._era = 0
        self._thread: threading.Thread | None = None

    def prepare(self) -> None:
        """Warm the node up before the first message."""
        self._instance = self._make()
        self._instance.warm()

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
        flight.data = message.joined()
        flight.size = len(flight.data)

    def here(self, message: Message) -> Message | None:
        return message

    def room(self, size: int) -> bool:
        return True

    def slots(self, warp: Warp) -> int:
        return 1

    def began(self, warp: Warp, flight: Flight) -> float:
        return flight.due_since or flight.sent_at

    def settled(self, warp: Warp, flight: Flight) -> None:
        """Nothing is kept here."""

    def post(self, warp: Warp, flight: Flight, *, wait: bool = True) -> None:
        with self._changed:
            flight.sent_at = time.monotonic()
            self._waiting.append((warp, flight))
            self._changed.notify_all()

    def withdraw(self, warp: Warp, flight: Flight) -> str:
        with self._changed:
            spent = time.monotonic() - (flight.due_since or flight.sent_at)
            if self._running is not flight:
                return f"{spent:.1f} s waiting here"
            ran = time.monotonic() - self._since
            self.course.forget(self._thread)
            self._era += 1  # the thread that hangs is nobody's any more
            self._running = self._instance = None
        self.start()
        return f"{max(0.0, spent - ran):.1f} s waiting, {ran:.1f} s running here"

    def _live(self, era: int) -> None:
        instance = self._instance
        try:
            if instance is None:
                instance = self._make()
                instance.warm()
                self._instance = instance
            while (item := self._next(era)) is not None:
                self._run(era, instance, *item)
        except BaseException as error:  # noqa: BLE001  # a node that cannot warm up, or a defect: never a hang
            self.course.fail(as_failure(error, "warped node", None))
        finally:
            if instance is not None:
                instance.destroy()

    def _next(self, era: int) -> tuple[Warp, Flight] | None:
        with self._changed:
            while not self.course.over.is_set() and era == self._era:
                while self._waiting:
                    warp, flight = self._waiting.popleft()
                    if not flight.done:
                        self._running, self._since = flight, time.monotonic()
                        return warp, flight
                self._changed.wait(0.2)
        return None

    def _run(self, era: int, instance: Instance, warp: Warp, flight: Flight) -> None:
        began = time.monotonic()
        data = flight.data if flight.data is not None else codec.encode_joined((flight.message,))
        flight.data = None
        try:
            outputs = instance.update(codec.decode(data)[0])
            outputs = codec.decode(codec.encode_joined(outputs))
            error = None
        except BaseException as raised:  # noqa: BLE001  # whatever user code raises is judged by on_error
            outputs, error = [], as_failure(raised, warp.name, flight.message)
        with self._changed:
            if era != self._era:
                return
            self._running = None
        if error is None:
            warp.returned(flight, outputs, waited=began - flight.sent_at, ran=time.monotonic() - began)
            warp.hand_over()
        else:
            warp.failed(flight, error)
