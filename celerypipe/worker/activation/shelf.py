"""The warm nodes that a worker process keeps while nobody uses them."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance
from celerypipe.mailbox.record import Record
from celerypipe.process.memory import memory_of_process
from celerypipe.redis.connection import Broken, Client
from celerypipe.worker.activation.deadman import DeadMan

#: Seconds after which a process forgets a run that gave it nothing to do.
LEFT_ALONE = 300.0


class Bounds(NamedTuple):
    """``seconds`` that an instance stays which nobody needs; ``memory``: bytes that its process may take meanwhile."""

    seconds: float = math.inf
    memory: float = math.inf


NONE = Bounds()


class Idle(NamedTuple):
    """An instance that nobody uses, ``since`` then. ``lasting``: it was to be warm from the start, and stays."""

    key: str
    instance: Instance
    since: float
    lasting: bool = False


class Shelf:
    """The warm instances of one worker process, by mark, code and configuration.

    At most ``size`` idle ones; for a run with more nodes here than that, as many as it has, as long as it lives and
    gives this process something to do. Besides that, whoever is idle for too long goes, and while the process takes
    too much memory, all but one go in turn. ``switch`` is told while one is let go, which takes as long as it takes.
    """

    def __init__(
        self,
        size: int,
        switch: DeadMan,
        bounds: Bounds = NONE,
        taken: Callable[[], int] = memory_of_process,
    ) -> None:
        self.size = max(1, size)
        self._bounds, self._taken = bounds, taken
        #: What was to be warm from the start, by its key.
        self._lasting: set[str] = set()
        #: Runs with more nodes here than ``size``: how many, and when that was last seen.
        self._wide: dict[str, tuple[int, float]] = {}
        self._switch = switch
        self._idle: OrderedDict[int, Idle] = OrderedDict()
        self._lock = threading.Lock()

    def lend(self, listing: Listing, record: Record, *, private: str = "") -> Instance:
        """Return an idle instance of this class for this record, or a new one, not warm yet.

        ``private``: the run and node that it is for; one that these have changed goes first.
        """
        with self._lock:
            for wanted in (f"{record.key}{private}", record.key):
                for place, each in self._idle.items():
                    if each.key == wanted and each.instance.listing.node is listing.node:
                        del self._idle[place]
                        return each.instance
        return Instance(listing, record.configuration)

    def give_back(self, record: Record, instance: Instance) -> None:
        """Keep an instance for the next who asks; the one idle for longest goes when there is no room."""
        key = f"{record.key}{instance.private}"
        with self._lock:
            self._idle[id(instance)] = Idle(key, instance, time.monotonic(), key in self._lasting)
        self.let_go(self._surplus())

    def preload(self, listing: Listing, key: str, configuration: dict[str, Any]) -> None:
        """Have a warm one from now on; there is room for it besides all others."""
        instance = Instance(listing, configuration)
        with self._switch.patient():
            instance.warm()
        with self._lock:
            self.size += bool(self._idle)
            self._lasting.add(key)
            self._idle[id(instance)] = Idle(key, instance, time.monotonic(), lasting=True)

    def make_room(self, run: str, count: int) -> None:
        """Keep so many as long as this run lives: it would warm up its nodes again and again, if they are more."""
        if count > self.size:
            with self._lock:
                self._wide[run] = count, time.monotonic()

    def look(self, client: Client, run: str = "") -> list[Instance]:
        """Ask which of the runs are over that need more room than others, or have changed an instance.

        Not ``run``, which goes on. Return what is too many.
        """
        with self._lock:
            private = [each.instance.private for each in self._idle.values()]
        changed = {each.split()[0] for each in private if each}
        asked = [each for each in {*self._wide, *changed} if each != run]
        try:
            states: Any = client.mget([client.names.run(each) for each in asked]) if asked else ()
        except Broken:  # somebody looks once more
            return []
        until = time.monotonic() - LEFT_ALONE
        over = {each for each, state in zip(asked, states, strict=True) if state != b"running"}
        with self._lock:
            for each in asked:
                if each in over or self._wide.get(each, (0, 0.0))[1] < until:
                    self._wide.pop(each, None)
            of_none = [place for place, each in self._idle.items() if over & set(each.instance.private.split()[:1])]
            gone = [self._idle.pop(place).instance for place in of_none]
        return gone + self._surplus() + self._too_long() + self._too_large()

    def clear_up(self, client: Client) -> None:
        """Let go of what is too many, in a thread of its own: the process has nothing to do, and may get something."""
        if gone := self.look(client):
            threading.Thread(target=self.let_go, args=(gone,), name="celerypipe-shelf", daemon=True).start()

    def _surplus(self) -> list[Instance]:
        """Take out those that there is no room for: the ones idle for longest."""
        with self._lock:
            room = max([self.size, *(count for count, _ in self._wide.values())])
            return [self._idle.popitem(last=False)[1].instance for _ in range(len(self._idle) - room)]

    def _too_long(self) -> list[Instance]:
        """Take out those that nobody needed for long."""
        with self._lock:
            until = time.monotonic() - self._bounds.seconds
            old = [place for place, each in self._idle.items() if each.since < until and not each.lasting]
            return [self._idle.pop(place).instance for place in old]

    def _too_large(self) -> list[Instance]:
        """Take out one, if the process takes too much: what an instance takes nobody knows before it is gone."""
        if self._taken() <= self._bounds.memory:
            return []
        with self._lock:
            oldest = next((place for place, each in self._idle.items() if not each.lasting), None)
            return [self._idle.pop(oldest).instance] if oldest is not None and len(self._idle) > 1 else []

    def mean(self, record: Record) -> float | None:
        """Return the mean seconds of an idle, warm instance for this record; None: there is none, or none is known."""
        with self._lock:
            known = [each.instance for each in self._idle.values() if each.key == record.key]
        return next((instance.mean for instance in known if instance.node is not None), None)

    def close(self) -> None:
        """Destroy all idle instances."""
        with self._lock:
            instances = [each.instance for each in self._idle.values()]
            self._idle.clear()
        self.let_go(instances)

    def let_go(self, instances: Iterable[Instance]) -> None:
        """Destroy those that were taken out."""
        for instance in instances:
            with self._switch.patient():
                instance.destroy()
