"""Checks of a node's arguments; what they raise names the argument and says what to write."""

from __future__ import annotations

import math
import string
from typing import Any


def number(name: str, value: Any, *, at_least: float = 0.0) -> float:
    """Return ``value`` as a float; TypeError or ValueError unless it is a finite number of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: {value!r} is no number; write a number of at least {at_least:g}")
    if not math.isfinite(value) or value < at_least:
        raise ValueError(f"{name}: {value!r} is out of range; write a number of at least {at_least:g}")
    return float(value)


def whole(name: str, value: Any, *, at_least: int = 0, at_most: int | None = None) -> int:
    """Return ``value``; TypeError or ValueError unless it is an int of at least ``at_least``, and ``at_most`` that."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: {value!r} is no whole number; write one of at least {at_least}")
    if value < at_least:
        raise ValueError(f"{name}: {value!r} is out of range; write a whole number of at least {at_least}")
    if at_most is not None and value > at_most:
        raise ValueError(f"{name}: {value!r} is out of range; write a whole number of at most {at_most}")
    return value


def placeholders(name: str, line: str) -> set[str]:
    """Return what stands in the braces of a ``line`` for ``str.format``; ValueError if it is none."""
    try:
        return {field for _, field, _, _ in string.Formatter().parse(line) if field is not None}
    except ValueError as error:
        raise ValueError(f"{name}: {line!r} is no format ({error}); write a brace as {{{{ or }}}}") from None


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return ``value``; ValueError unless it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}: {value!r} is unknown; write one of {', '.join(map(repr, choices))}")
    return str(value)
