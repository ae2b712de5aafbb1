"""``data_streamer``: a source of given items or of plain numbers, at a steady rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Iterator
from typing import Any

from celerypipe.contract.contract import Source
from celerypipe.contract.positions import Position, Positions
from celerypipe.message.message import Message
from celerypipe.message.payload import Object
from celerypipe.nodes.parts.arguments import number, whole


class DataStreamer(Source):
    """Sends the given ``items``, or the numbers 0 to ``count`` - 1, at ``rate`` messages a second, then ends.

    With neither: ten numbers, one a second. An item that is a dictionary becomes an Object; ``version`` of a message
    is its number, counted from 0. The first message leaves at once. After a delay the
    missed messages follow without a pause, so that the average rate holds. A run of it can be resumed.

    ``items``: any values, one payload each; not together with ``count``
    ``count``: how many numbers to send
    ``rate``: messages a second; 0 means as fast as the pipeline takes them
    """

    def __init__(self, items: list[Any] | None = None, count: int | None = None, rate: float = 1.0) -> None:
        if items is not None and count is not None:
            raise ValueError("items and count: give one of them, not both")
        if items is not None and not isinstance(items, list | tuple):
            raise TypeError(f"items: {items!r} is no list; write a list of payloads")
        self.items = range(10 if count is None else whole("count", count)) if items is None else items
        self.rate = number("rate", rate)
        self._through: Container[Position] = Positions()
        self._stopped = threading.Event()

    def seek(self, through: Container[Position]) -> None:
        """Leave out these items, and the time that they would take."""
        self._through = through

    def total(self) -> int:
        """Return the number of items, without those that are left out."""
        return sum(index not in self._through for index in range(len(self.items))) if self._through else len(self.items)

    def messages(self) -> Iterator[Message]:
        """Yield one message an item, each at its time."""
        start = time.monotonic()
        sent = 0
        for index, item in enumerate(self.items):
            if index in self._through:
                continue
            due = start + sent / self.rate if self.rate else start
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                return
            sent += 1
            yield Message(Object(item) if type(item) is dict else item, version=index, sequence=index)

    def stop(self) -> None:
        """End the wait for the next item."""
        self._stopped.set()
