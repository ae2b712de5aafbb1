"""Nodes that the tests run in the runner's own process."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celerypipe import Message, Proc, Sink, Source

#: What happened, in order; a test clears it.
events: list[str] = []


class Numbers(Source):
    """Yields 0 to ``count`` - 1; hangs after ``hang_after`` of them."""

    def __init__(self, count: int = 5, hang_after: int | None = None) -> None:
        self.count = count
        self.hang_after = hang_after

    def messages(self) -> Iterator[Message]:
        for number in range(self.count):
            if number == self.hang_after:
                threading.Event().wait(60)
            yield Message(number, meta={"number": number})


class Until(Source):
    """Yields its items, and ends when a file is there."""

    def __init__(self, items: list[Any], path: str) -> None:
        self.items = items
        self.path = Path(path)

    def messages(self) -> Iterator[Message]:
        for item in self.items:
            yield Message(item)
        while not self.path.exists():
            time.sleep(0.01)


class Keep(Proc):
    """Sends on the numbers that ``every`` divides."""

    def __init__(self, every: int = 1, delay: float = 0.0) -> None:
        self.every = every
        self.delay = delay

    def update(self, message: Message) -> Message | None:
        time.sleep(self.delay)
        return message if message.payload % self.every == 0 else None


class Quit(Proc):
    """Ends its own thread, as a library that calls ``sys.exit`` would."""

    def update(self, message: Message) -> Message:
        sys.exit("no more")


class Torn(Proc):
    """Has a broken ``next_batch``."""

    def next_batch(self, sources: dict[str, list[Message]]) -> dict[str, list[int]]:
        raise KeyError("lost")

    def update(self, message: Message) -> Message:
        return message


class Opened(Sink):
    """Notes its life in ``events``."""

    def warmup(self) -> None:
        events.append("warmup")

    def update(self, message: Message) -> None:
        events.append(f"update {message.payload}")

    def destroy(self) -> None:
        events.append("destroy")


class Cold(Sink):
    """Cannot warm up, once the others could."""

    def warmup(self) -> None:
        while "warmup" not in events:
            time.sleep(0.001)
        raise OSError("no such device")
