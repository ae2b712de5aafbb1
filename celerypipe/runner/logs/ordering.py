"""Lines of several machines in the order of their times: each is held for a moment, as an earlier one may be late."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator

from celerypipe.message.logs import LogLine

#: Seconds that a line is held.
HELD = 0.2
#: Lines that are held at most: more are handed on before their time.
MOST = 10_000


class Ordering:
    """Takes lines as they come, with the time when they came; gives them back in their order."""

    def __init__(self, held: float = HELD) -> None:
        self._held = held
        self._heap: list[tuple[float, int, LogLine]] = []
        self._count = itertools.count()
        #: When lines came, and the latest time among those that had come by then.
        self._came: deque[tuple[float, float]] = deque()

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, lines: Iterable[LogLine], now: float) -> None:
        """Take some."""
        latest = self._came[-1][1] if self._came else 0.0
        for line in lines:
            heapq.heappush(self._heap, (line.time, next(self._count), line))
            latest = max(latest, line.time)
        self._came.append((now, latest))

    def due_in(self, now: float) -> float | None:
        """Return the seconds until the next one is to be handed on; None: nothing is here."""
        return max(0.0, self._came[0][0] + self._held - now) if self._heap and self._came else None

    def ready(self, now: float, *, all_of_them: bool = False) -> Iterator[LogLine]:
        """Yield what was held for long enough, or all."""
        until = 0.0
        while self._came and (all_of_them or now >= self._came[0][0] + self._held):
            until = self._came.popleft()[1]
        while self._heap and (all_of_them or self._heap[0][0] <= until or len(self._heap) > MOST):
            yield heapq.heappop(self._heap)[2]
