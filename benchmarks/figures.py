"""Figures: what repetitions gave, beside a yardstick of the same repetition and a target."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

YARDSTICKS = "Yardsticks"
#: The columns of each table.
COLUMNS = ("workload", "place", "figure", "median", "lowest to highest", "ratio to yardstick", "target", "met")


@dataclass(frozen=True, slots=True)
class Target:
    """What a median shall be: at most (or ``least``: at least) the bound, or even the stretch.

    ``of`` says of what: the ratio to the yardstick, or the figure itself.
    """

    bound: float
    stretch: float | None = None
    least: bool = False
    of: Literal["ratio", "figure"] = "ratio"

    def text(self, unit: str) -> str:
        """``≤ 3 × (2 ×)``."""
        after = " ×" if self.of == "ratio" else spaced(unit)
        further = f" ({short(self.stretch)}{after})" if self.stretch is not None else ""
        return f"{'≥' if self.least else '≤'} {short(self.bound)}{after}{further}"

    def met(self, value: float) -> str:
        """``missed``, ``met``, or ``stretch met``."""

        def reached(bound: float) -> bool:
            return value >= bound if self.least else value <= bound

        if self.stretch is not None and reached(self.stretch):
            return "stretch met"
        return "met" if reached(self.bound) else "missed"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one repetition. ``ratio`` is the value divided by the ``yardstick``'s of the same repetition.

    ``group``: the table it stands in, if not that of its workload.
    """

    workload: str
    figure: str
    unit: str
    value: float
    yardstick: str = ""
    ratio: float | None = None
    target: Target | None = None
    group: str = ""


def yardstick(name: str, unit: str, value: float, what: str = "100 B") -> Sample:
    """A yardstick itself, to be shown with the others."""
    return Sample(what, name, unit, value, group=YARDSTICKS)


def beside(sample: Sample, name: str, value: float, target: Target | None = None) -> Sample:
    """The sample with its ratio to a yardstick, given in the same unit."""
    return replace(sample, yardstick=name, ratio=sample.value / value, target=target)


@dataclass(slots=True)
class Figure:
    """The samples of one thing at one place."""

    group: str
    workload: str
    place: str
    figure: str
    unit: str
    yardstick: str = ""
    target: Target | None = None
    values: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Figure:
        """What :func:`dataclasses.asdict` made of it."""
        return cls(**{**data, "target": Target(**data["target"]) if data["target"] else None})

    def cells(self) -> tuple[str, ...]:
        """Its row of a table, see ``COLUMNS``."""
        values = self.values
        ratio = f"{spread(self.ratios)} × {self.yardstick}" if self.ratios else ""
        return (
            self.workload,
            self.place,
            self.figure,
            f"{short(statistics.median(values))}{spaced(self.unit)}",
            f"{short(min(values))} to {short(max(values))}" if len(values) > 1 else "",
            ratio,
            self.target.text(self.unit) if self.target is not None else "",
            self.met(),
        )

    def met(self) -> str:
        """Whether the median reaches the target, see :meth:`Target.met`; empty without one."""
        if self.target is None:
            return ""
        return self.target.met(statistics.median(self.ratios if self.target.of == "ratio" else self.values))


class Figures:
    """Everything measured so far, in the order in which it first came."""

    def __init__(self, figures: Iterable[Figure] = ()) -> None:
        self.all: list[Figure] = list(figures)

    def add(self, group: str, place: str, sample: Sample) -> None:
        """Put a sample to those of earlier repetitions."""
        new = Figure(
            sample.group or group, sample.workload, place, sample.figure, sample.unit, sample.yardstick, sample.target
        )
        figure = next((known for known in self.all if _key(known) == _key(new)), None)
        if figure is None:
            self.all.append(figure := new)
        figure.values.append(sample.value)
        if sample.ratio is not None:
            figure.ratios.append(sample.ratio)

    def groups(self) -> dict[str, list[Figure]]:
        """The figures of each group; what was measured at two places stands together."""
        found: dict[str, list[Figure]] = {YARDSTICKS: []}
        first: dict[tuple[str, ...], int] = {}
        for number, figure in enumerate(self.all):
            first.setdefault(_key(figure)[1:], number)
            found.setdefault(figure.group, []).append(figure)
        for figures in found.values():
            figures.sort(key=lambda figure: first[_key(figure)[1:]])
        return {group: figures for group, figures in found.items() if figures}

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values for JSON."""
        return [asdict(figure) for figure in self.all]


def _key(figure: Figure) -> tuple[str, ...]:
    return figure.place, figure.group, figure.workload, figure.figure, figure.yardstick


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """The lines of a table."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def spread(values: Sequence[float]) -> str:
    """``2.8 (2.5 to 3.1)``."""
    middle = short(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({short(min(values))} to {short(max(values))})"


def spaced(unit: str) -> str:
    """A unit as it follows a number: ``5 ms``, but ``5/s``."""
    return unit if not unit or unit.startswith("/") else f" {unit}"


def short(value: float) -> str:
    """A number as people read it: three figures, no more, and thousands apart."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"
