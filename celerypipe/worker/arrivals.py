"""Spawned processes of a pool on their way: they import all that their nodes need, which takes seconds or more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from celerypipe.celery.prefork import child_began, child_ended, child_up
from celerypipe.mailbox import hints
from celerypipe.mailbox.holder import Process
from celerypipe.redis.connection import Client

#: Has something done in Redis soon.
Say = Callable[[Callable[[Client], None]], None]


class Arrivals:
    """Says of each that its slot comes in a moment, so that nobody is late meanwhile; once it is there, no more.

    Not where one has ended on its way, until another has arrived: they may come and end like that for ever.
    """

    def __init__(self, queues: Sequence[str], process: Callable[[int], Process]) -> None:
        self._queues = queues
        self._process = process
        self._coming: set[int] = set()
        self._failing = False
        self._say: Say = lambda action: None

    def connect(self) -> None:
        """Hear of them from now on."""
        child_began.connect(self.began, weak=False)
        child_up.connect(self.arrived, weak=False)
        child_ended.connect(self.ended, weak=False)

    def tell(self, say: Say) -> None:
        """Runners know of this worker: say what there is to say, now and from now on."""
        self._say = say
        for pid in list(self._coming):
            self._expect(pid)

    def began(self, pid: int, **_: Any) -> None:
        """A process begins."""
        self._coming.add(pid)
        if not self._failing:
            self._expect(pid)

    def arrived(self, pid: int, **_: Any) -> None:
        """It can take a task."""
        self._failing = False
        self._take_back(pid)

    def ended(self, pid: int, **_: Any) -> None:
        """It ended."""
        if pid in self._coming:
            self._failing = True
            self._take_back(pid)

    def _expect(self, pid: int) -> None:
        self._say(lambda client: hints.say_coming(client, self._queues, self._process(pid)))

    def _take_back(self, pid: int) -> None:
        self._coming.discard(pid)
        self._say(lambda client: hints.say_arrived(client, self._queues, self._process(pid)))
