"""The messages of a source that are made one by one, where what one of them raises is for it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from celerypipe.message.message import Message

Item = TypeVar("Item")


class Readings(Iterator[Message], Generic[Item]):
    """What a source returns from ``messages`` to continue after an error: ``Readings(self.read, self.paths)``.

    Each message is what ``make`` returns for the next of ``items``, as with ``map``. If ``make`` raises, the node's
    ``retries`` and ``on_error`` are for that item: it is tried again, and given up by itself. What ``items`` raises, a
    generator of your own perhaps, ends the source.
    """

    def __init__(self, make: Callable[[Item], Message], items: Iterable[Item]) -> None:
        self.make = make
        self.items = iter(items)

    def __next__(self) -> Message:
        return self.make(next(self.items))
