"""Built-in nodes without a runner: their life, and a thread that reads a source."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def living(node: Any, name: str = "node") -> Iterator[Any]:
    """Take a node through its life, as the runner does."""
    node.name = name
    try:
        node.configure()
        node.warmup()
        yield node
    finally:
        node.destroy()


class Reader:
    """Runs a source as the runner does, in a thread of its own."""

    def __init__(self, source: Any) -> None:
        self.received: queue.Queue[Any] = queue.Queue()
        self.thread = threading.Thread(target=self.read, args=(source,), daemon=True)
        self.thread.start()

    def read(self, source: Any) -> None:
        for message in source.messages():
            self.received.put(message)

    def next(self) -> Any:
        return self.received.get(timeout=10)

    def has_ended(self) -> bool:
        self.thread.join(timeout=10)
        return not self.thread.is_alive()
