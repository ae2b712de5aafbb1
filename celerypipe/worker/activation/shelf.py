"""The warm nodes that a worker process keeps while nobody uses them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from celerypipe.catalogue.instance import Instance
from celerypipe.worker.activation.deadman import DeadMan


class Shelf:
    """The warm instances of one worker process, by mark and configuration; at most ``size`` idle ones.

    ``switch`` is told while one is let go, which takes as long as it takes.
    """

    def __init__(self, size: int, switch: DeadMan) -> None:
        self.size = max(1, size)
        self._switch = switch
        self._idle: OrderedDict[int, tuple[str, Instance]] = OrderedDict()
        self._lock = threading.Lock()

    def lend(self, key: str, make: Callable[[], Instance]) -> Instance:
        """Return an idle instance with this key, or a new one, not warm yet."""
        with self._lock:
            for place, (known, instance) in self._idle.items():
                if known == key:
                    del self._idle[place]
                    return instance
        return make()

    def give_back(self, key: str, instance: Instance) -> None:
        """Keep an instance for the next who asks; the one idle for longest goes when there is no room."""
        gone: list[Instance] = []
        with self._lock:
            self._idle[id(instance)] = (key, instance)
            while len(self._idle) > self.size:
                gone.append(self._idle.popitem(last=False)[1][1])
        self._destroy(gone)

    def make_room(self, count: int) -> None:
        """Keep so many from now on: a pipeline with more nodes here than slots would warm them up again and again."""
        self.size = max(self.size, count)

    def mean(self, key: str) -> float | None:
        """Return the mean seconds of an idle, warm instance with this key; None: there is none, or none is known."""
        with self._lock:
            idle = [instance for known, instance in self._idle.values() if known == key and instance.node is not None]
        return idle[0].mean if idle else None

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
