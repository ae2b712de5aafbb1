"""The warm nodes that a worker process keeps while nobody uses them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance
from celerypipe.mailbox.record import Record
from celerypipe.worker.activation.deadman import DeadMan


class Shelf:
    """The warm instances of one worker process, by mark, code and configuration; at most ``size`` idle ones.

    ``switch`` is told while one is let go, which takes as long as it takes.
    """

    def __init__(self, size: int, switch: DeadMan) -> None:
        self.size = max(1, size)
        self._switch = switch
        self._idle: OrderedDict[int, tuple[str, Instance]] = OrderedDict()
        self._lock = threading.Lock()

    def lend(self, listing: Listing, record: Record) -> Instance:
        """Return an idle instance of this class for this record, or a new one, not warm yet."""
        with self._lock:
            for place, (known, instance) in self._idle.items():
                if known == record.key and instance.listing.node is listing.node:
                    del self._idle[place]
                    return instance
        return Instance(listing, record.configuration)

    def give_back(self, record: Record, instance: Instance) -> None:
        """Keep an instance for the next who asks; the one idle for longest goes when there is no room."""
        gone: list[Instance] = []
        with self._lock:
            self._idle[id(instance)] = (record.key, instance)
            while len(self._idle) > self.size:
                gone.append(self._idle.popitem(last=False)[1][1])
        self._destroy(gone)

    def make_room(self, count: int) -> None:
        """Keep so many from now on: a pipeline with more nodes here than slots would warm them up again and again."""
        self.size = max(self.size, count)

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
        self._destroy(instances)

    def _destroy(self, instances: Iterable[Instance]) -> None:
        for instance in instances:
            with self._switch.patient():
                instance.destroy()
