"""The clocks of the messages of one warped node: whose time runs, since when, and who is late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.runner.warp.flight import Flight, Note

#: Seconds that a worker gets to say itself that a message is late, where it has more to say than that.
WORD = 0.1


class Clocks:
    """A message's time runs from its turn on: when fewer before it are unfinished than slots were rung.

    Its user holds a lock around every call.
    """

    def __init__(self, node: NodeDefinition) -> None:
        batches, timeout = node.warp_configuration.batches, node.timeout
        #: Seconds a message may take; that its batch fills is not its own time.
        self.allowed = timeout + batches.wait if timeout is not None and batches.size > 1 else timeout
        if self.allowed is not None and node.console:
            self.allowed += WORD  # its worker, which keeps the same time, knows what was printed until then
        self._running = 0
        self._waiting: deque[Flight] = deque()
        self._noted = False
        self._later: list[tuple[float, Flight]] = []

    def add(self, flight: Flight) -> None:
        """A message is out; its turn will come."""
        if self.allowed is not None:
            self._waiting.append(flight)

    @property
    def waits(self) -> bool:
        """Is there a message whose turn it may be?"""
        return bool(self._waiting)

    def start(self, slots: int) -> None:
        """Start the time of those whose turn it is, where so many can be in ``update``."""
        while self._running < slots and self._waiting:
            flight = self._waiting.popleft()
            if not flight.done and flight.due_since is None:
                self.restart(flight)

    def restart(self, flight: Flight) -> None:
        """Start the time of one message, now."""
        if flight.due_since is None:
            self._running += 1
        flight.due_since = time.monotonic()

    def postpone(self, flight: Flight) -> None:
        """It is sent once more, behind those that are out, so that its turn comes after theirs."""
        if self.allowed is None:
            return
        if flight.due_since is not None:
            self._running -= 1
            flight.due_since = None
        elif flight in self._waiting:
            self._waiting.remove(flight)
        self._waiting.append(flight)

    def stop(self, flight: Flight) -> None:
        """A message is through, or given up."""
        if flight.due_since is not None:
            self._running -= 1

    def later(self, flight: Flight, seconds: float) -> None:
        """A message is tried again after so many seconds."""
        self._later.append((time.monotonic() + seconds, flight))

    def again(self, now: float) -> list[Flight]:
        """Return those that are tried again now; their time starts."""
        if not self._later:
            return []
        found = [flight for due, flight in self._later if due <= now and not flight.done]
        self._later = [(due, flight) for due, flight in self._later if due > now]
        for flight in found:
            self.restart(flight)
        return found

    def note(self, flight: Flight, note: Note) -> None:
        """A node further on is at work on what came out of this one: its time counts from now on."""
        self.restart(flight)
        flight.note, self._noted = note, True

    def late(self, flights: Iterable[Flight], now: float) -> list[Flight]:
        """Return those whose time is over."""
        if self.allowed is None and not self._noted:
            return []
        return [flight for flight in flights if self.is_late(flight, now)]

    def is_late(self, flight: Flight, now: float) -> bool:
        """Is its time over, or that of the node that works on what came out of this one?"""
        allowed = flight.note.allowed if flight.note is not None else self.allowed
        return flight.due_since is not None and allowed is not None and now - flight.due_since > allowed
