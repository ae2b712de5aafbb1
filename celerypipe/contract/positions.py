"""A set of positions in a source: numbers as ranges, so that ten million of them take no room; names one by one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any, Self

#: Where a message stands in its source: a number or a text, the same in every run.
Position = int | str


class Positions:
    """A set of :data:`Position`; ``position in positions`` is quick, however many there are."""

    def __init__(self, positions: Iterable[Position] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._names: set[str] = set()
        for position in positions:
            self.add(position)

    def __contains__(self, position: object) -> bool:
        if isinstance(position, str):
            return position in self._names
        if not isinstance(position, int):
            return False
        place = bisect_right(self._firsts, position) - 1
        return place >= 0 and position <= self._lasts[place]

    def __len__(self) -> int:
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts) + len(self._names)

    def __bool__(self) -> bool:
        return bool(self._firsts or self._names)

    def add(self, position: Position) -> None:
        """Add one."""
        if isinstance(position, str):
            self._names.add(position)
        else:
            self.add_range(position, position)

    def add_range(self, first: int, last: int) -> None:
        """Add all numbers from ``first`` to ``last``, both included."""
        low = bisect_left(self._lasts, first - 1)  # the first range that touches it
        high = bisect_right(self._firsts, last + 1)  # behind the last one that does
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def update(self, others: Positions) -> None:
        """Add all of another set."""
        for first, last in zip(others._firsts, others._lasts, strict=True):
            self.add_range(first, last)
        self._names |= others._names

    def to_list(self) -> list[Any]:
        """Return it as JSON values: ``[first, last]`` for a range, a text for a name."""
        ranges = [[first, last] for first, last in zip(self._firsts, self._lasts, strict=True)]
        return [*ranges, *sorted(self._names)]

    @classmethod
    def from_list(cls, items: Any) -> Self:
        """Make one of what :meth:`to_list` returned; ValueError for anything else."""
        made = cls()
        for item in items if isinstance(items, list) else [items]:
            match item:
                case str():
                    made.add(item)
                case [int() as first, int() as last] if first <= last:
                    made.add_range(first, last)
                case _:
                    raise ValueError(f"{item!r} is neither a range nor a name")
        return made
