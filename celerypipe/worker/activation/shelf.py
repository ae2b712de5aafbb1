"""The warm nodes that a worker process keeps while nobody uses them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance
from celerypipe.mailbox.record import Record
from celerypipe.redis.connection import Broken, Client
from celerypipe.worker.activation.deadman import DeadMan

#: Seconds after which a process forgets a run that gave it nothing to do.
LEFT_ALONE = 300.0


class Shelf:
    """The warm instances of one worker process, by mark, code and configuration.

    At most ``size`` idle ones; for a run with more nodes here than that, as many as it has, as long as it lives and
    gives this process something to do. ``switch`` is told while one is let go, which takes as long as it takes.
    """

    def __init__(self, size: int, switch: DeadMan) -> None:
        self.size = max(1, size)
        #: Runs with more nodes here than ``size``: how many, and when that was last seen.
        self._wide: dict[str, tuple[int, float]] = {}
        self._switch = switch
        self._idle: OrderedDict[int, tuple[str, Instance]] = OrderedDict()
        self._lock = threading.Lock()

    def lend(self, listing: Listing, record: Record, *, private: str = "") -> Instance:
        """Return an idle instance of this class for this record, or a new one, not warm yet.

        ``private``: the run and node that it is for; one that these have changed goes first.
        """
        with self._lock:
            for wanted in (f"{record.key}{private}", record.key):
                for place, (known, instance) in self._idle.items():
                    if known == wanted and instance.listing.node is listing.node:
                        del self._idle[place]
                        return instance
        return Instance(listing, record.configuration)

    def give_back(self, record: Record, instance: Instance) -> None:
        """Keep an instance for the next who asks; the one idle for longest goes when there is no room."""
        with self._lock:
            self._idle[id(instance)] = (f"{record.key}{instance.private}", instance)
        self.let_go(self._surplus())

    def preload(self, listing: Listing, key: str, configuration: dict[str, Any]) -> None:
        """Have a warm one from now on; there is room for it besides all others."""
        instance = Instance(listing, configuration)
        with self._switch.patient():
            instance.warm()
        with self._lock:
            self.size += bool(self._idle)
            self._idle[id(instance)] = (key, instance)

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
            changed = {instance.private.split()[0] for _, instance in self._idle.values() if instance.private}
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
            of_none = [place for place, (_, each) in self._idle.items() if over & set(each.private.split()[:1])]
            gone = [self._idle.pop(place)[1] for place in of_none]
        return gone + self._surplus()

    def clear_up(self, client: Client) -> None:
        """Let go of what is too many, in a thread of its own: the process has nothing to do, and may get something."""
        if gone := self.look(client):
            threading.Thread(target=self.let_go, args=(gone,), name="celerypipe-shelf", daemon=True).start()

    def _surplus(self) -> list[Instance]:
        """Take out those that there is no room for: the ones idle for longest."""
        with self._lock:
            room = max([self.size, *(count for count, _ in self._wide.values())])
            return [self._idle.popitem(last=False)[1][1] for _ in range(len(self._idle) - room)]

    def mean(self, record: Record) -> float | None:
        """Return the mean seconds of an idle, warm instance for this record; None: there is none, or none is known."""
        with self._lock:
            known = [instance for key, instance in self._idle.values() if key == record.key]
        return next((instance.mean for instance in known if instance.node is not None), None)

    def close(self) -> None:
        """Destroy all idle instances."""
        with self._lock:
            instances = [instance for _, instance in self._idle.values()]
            self._idle.clear()
        self.let_go(instances)

    def let_go(self, instances: Iterable[Instance]) -> None:
        """Destroy those that were taken out."""
        for instance in instances:
            with self._switch.patient():
                instance.destroy()
