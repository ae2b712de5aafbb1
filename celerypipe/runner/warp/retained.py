"""What a runner keeps of a stateful warped node: the last snapshot it has read, and every message since.

So it can go back to that snapshot whatever Redis lost, as it can send a message again whose result is not back.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

from celerypipe.mailbox.fence import GIVEN_UP
from celerypipe.message.message import Message
from celerypipe.runner.warp.flight import Flight

#: Seconds that the word that a message was given up may be on its way to the mailbox.
ON_ITS_WAY = 1.0
#: So many given up messages, where nobody takes a snapshot, are worth putting together.
MANY = 1000


class Retained:
    """``last``: the sequence number up to which the snapshot ``data`` goes; None is that of a node just made.

    ``out``: the messages whose results are not back; ``lock`` is held by whoever changes them, and around this call.
    ``sequence``: the number of the next one; what is not out was given up, before anybody served the node.
    """

    def __init__(self, lock: AbstractContextManager[Any], out: Mapping[int, Flight], sequence: int) -> None:
        first = min(out, default=sequence)
        self.last = first - 1
        self.data: bytes | None = None
        #: Messages that were answered or given up, and are in no snapshot that is here.
        self.flights: dict[int, Flight] = {}
        #: It is not known what Redis holds: go back to the snapshot.
        self.doubtful = False
        self._out = out
        self._lock = lock
        #: The last number of a word that is about several messages that were given up, by its own, the first one.
        self._up_to: dict[int, int] = {}
        for gap in set(range(first, sequence)).difference(out):
            self.give_up(gap, out[first].message)

    def keep(self, flight: Flight) -> None:
        """A message is answered; the caller holds the lock, so that it is never in neither place."""
        self.flights[flight.sequence] = flight

    def keeps(self, flight: Flight) -> bool:
        """Is this one needed to make the state again?"""
        return self.flights.get(flight.sequence) is flight

    def give_up(self, sequence: int, message: Message) -> Flight:
        """Return what tells the activation that a message will not come any more; the caller holds the lock."""
        flight = self.flights[sequence] = Flight(sequence, message, GIVEN_UP, data=b"")
        return flight

    def merge(self) -> bool:
        """Make one word of all that were given up in a row; True if that is worth sending them anew."""
        with self._lock:
            words = sorted(number for number, flight in self.flights.items() if flight.attempt == GIVEN_UP)
            if len(words) < MANY:
                return False
            left, end = words[:1], self._up_to.get(words[0], words[0])
            for number in words[1:]:
                if number == end + 1:
                    self.flights.pop(number).done = True
                else:
                    left.append(number)
                end = self._up_to[left[-1]] = self._up_to.pop(number, number)
            return len(left) < len(words) / 2

    def given_up(self) -> list[int]:
        """Return the numbers of the messages that were given up a while ago, and are in no snapshot here."""
        before = time.monotonic() - ON_ITS_WAY
        with self._lock:
            words = [flight for flight in self.flights.values() if flight.attempt == GIVEN_UP]
        return [word.sequence for word in words if 0.0 < word.sent_at < before]

    def answered_up_to(self, last: int) -> bool:
        """Are the results of all messages up to this one here? What was given up in doubt may be in its state."""
        with self._lock:
            return not self.doubtful and all(sequence > last for sequence in self._out)

    def saved(self, last: int, data: bytes | None) -> list[Flight]:
        """A newer snapshot is here; return the messages that are not needed any more."""
        with self._lock:
            self.last, self.data = last, data
            self._up_to = {number: end for number, end in self._up_to.items() if number > last}
            return [self.flights.pop(sequence) for sequence in [each for each in self.flights if each <= last]]

    def forget(self) -> None:
        """Nobody will go back."""
        with self._lock:
            self.flights.clear()

    def since(self, waits: Collection[Flight]) -> list[Flight]:
        """Return all messages since the snapshot, in order, ready to be sent again; without those that ``waits``."""
        with self._lock:
            for flight in self.flights.values():
                flight.done = False
                if flight.attempt == GIVEN_UP:
                    flight.data = b"%d" % self._up_to[flight.sequence] if flight.sequence in self._up_to else b""
            out = [flight for flight in self._out.values() if flight.sent_at and not flight.remaking]
            again = [flight for flight in (*self.flights.values(), *out) if flight not in waits]
        return sorted(again, key=lambda flight: flight.sequence)
