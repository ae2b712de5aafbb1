"""What waits in front of a node that runs here, or for who reads a pipeline's results: so much, and no more."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from celerypipe.message.message import Message
from celerypipe.message.payload import size_bytes

#: Messages that wait before upstream nodes are held up, and bytes: a recording of an hour has 230 MB.
MESSAGES, BYTES = 64, 64 << 20

Waits = TypeVar("Waits")


class Backlog(Generic[Waits]):
    """Entries in their order, each with the size of its message. Its station's lock guards it."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Waits, int]] = deque()
        #: About how many bytes the messages in here are.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Waits, message: Message) -> None:
        """Put an entry behind the others; ``message``: what of it has a size."""
        size = size_bytes(message.payload)
        self.bytes += size
        self._entries.append((entry, size))

    def first(self) -> Waits:
        """Return the entry that has waited longest; it stays."""
        return self._entries[0][0]

    def take(self) -> Waits:
        """Return the entry that has waited longest; it waits no more."""
        entry, size = self._entries.popleft()
        self.bytes -= size
        return entry

    def all(self) -> list[Waits]:
        """Return all entries; they stay."""
        return [entry for entry, _ in self._entries]
