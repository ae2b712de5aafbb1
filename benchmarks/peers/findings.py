"""What the repetitions found: a row for each figure of each peer, and how it is written."""

from __future__ import annotations

import statistics
from typing import Any

Row = dict[str, Any]


class Findings:
    """Rows by peer and workload. ``values`` of a row: one for each repetition, None where there is none."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], Row] = {}
        #: Medians of the yardstick, µs.
        self.pings: list[float] = []

    def add(self, answer: Row, ping: float, repetition: int) -> None:
        """Put one repetition's value to the others."""
        answer = dict(answer)
        value = answer.pop("value", None)
        row = self._row(answer)
        row.update(answer)
        if value is None:
            return
        row["values"] += [None] * (repetition - len(row["values"])) + [significant(value)]
        # How many ping-pongs one message takes; or how many messages pass in the time of one.
        row["ratios"].append(value / ping if row["unit"] == "µs" else value * ping / 1e6)

    def miss(self, name: str, reason: str) -> None:
        """Note that a peer ended, or is not there."""
        self._row({"peer": name, "workload": "", "figure": "", "unit": ""})["reason"] = reason

    def lost(self, peer: str, workload: str, figure: str) -> bool:
        """Whether this figure could not be had, so that trying again is a waste."""
        return "reason" in self._rows.get((peer, workload, figure), {})

    def to_list(self) -> list[Row]:
        """The rows as they are written."""
        return [finished(row) for row in self._rows.values()]

    def _row(self, answer: Row) -> Row:
        key = (answer["peer"], answer["workload"], answer["figure"])
        return self._rows.setdefault(key, {**answer, "values": [], "ratios": []})


def finished(row: Row) -> Row:
    """A figure as it is written: median, lowest, highest; or why there is none."""
    row = dict(row)
    ratios, reason = row.pop("ratios"), row.pop("reason", "")
    values = [value for value in row["values"] if value is not None]
    numbers = {"median": None, "low": None, "high": None, "per yardstick": None}
    if values:
        numbers = {
            "median": significant(statistics.median(values)),
            "low": min(values),
            "high": max(values),
            "per yardstick": significant(statistics.median(ratios)),
        }
    why = f"{'once ' if values else ''}not measured: {reason}" if reason else ""
    note = "; ".join(filter(None, (why, row.pop("note", ""))))
    return row | numbers | {"note": note}


def significant(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")
