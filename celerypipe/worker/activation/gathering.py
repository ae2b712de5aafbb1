"""Micro-batches: messages that gather until their node gets several at once, and what came out for each of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from celerypipe.mailbox.wire import Entry


def groups_of(entries: Sequence[Entry], size: int) -> list[list[Entry]]:
    """Divide entries into what is run together, without those that are run by themselves, since they are suspects."""
    groups: list[list[Entry]] = []
    for entry in entries:
        last = groups[-1] if groups else []
        if 0 < len(last) < size and not entry.alone and not last[0].alone:
            last.append(entry)
        else:
            groups.append([entry])
    return groups


class Gathering:
    """Entries of one mailbox, held until they are as many as its node takes at once or have waited ``wait`` seconds."""

    def __init__(self, size: int, wait: float) -> None:
        self.size = size
        self.wait = wait
        self._entries: list[Entry] = []
        self._until = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> str:
        """The id of the first entry that it holds; empty if there is none."""
        return self._entries[0].id if self._entries else ""

    @property
    def left(self) -> float:
        """Seconds until what it holds has waited long enough."""
        return max(0.0, self._until - time.monotonic())

    def add(self, entries: Sequence[Entry]) -> None:
        """Hold these too."""
        if entries and not self._entries:
            self._until = time.monotonic() + self.wait
        self._entries += entries

    def take(self, *, everything: bool = False) -> list[Entry]:
        """Return what is to be run now: whole batches, and at the end one that has waited long enough.

        One that is run by itself waits for nobody. Those before it leave with it: the runner takes the oldest entry
        that is out for the one that runs.
        """
        held = self._entries
        count = len(held) if everything or not self.left else len(held) - len(held) % self.size
        count = max([count, *(number + 1 for number, entry in enumerate(held) if entry.alone)])
        self._entries = held[count:]
        if count and self._entries:  # they came with the last ones
            self._until = time.monotonic() + self.wait
        return held[:count]
