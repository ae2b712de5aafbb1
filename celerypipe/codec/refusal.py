"""What a payload is told that cannot travel: where it stands in there, what it is, what to send instead."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import os
import reprlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from celerypipe.errors import CodecError

#: A cycle has a place of 64 parts; nobody reads the middle of it.
_LONGEST_PLACE = 160


class Refusal(CodecError):  # inside the codec only; it leaves as a CodecError
    """A value that cannot travel; on its way out of the tree it learns its place, innermost part first."""

    def __init__(self, text: str) -> None:
        self.place = ""
        self.text = text

    def inside(self, part: str) -> Refusal:
        """Put one more part in front of the place."""
        self.place = part + self.place
        return self

    def __str__(self) -> str:
        place = self.place
        if len(place) > _LONGEST_PLACE:
            place = f"{place[: _LONGEST_PLACE // 2]} … {place[-_LONGEST_PLACE // 2 :]}"
        return f"{place}: {self.text}" if place else self.text


def at_key(key: object) -> str:
    """Return the part of a place that a dictionary's key is."""
    return f"[{reprlib.repr(key)}]"


def refusal_of(value: Any) -> Refusal:
    """Return the refusal of a value whose class the codec does not know."""
    kind = type(value)
    if kind is type:
        return Refusal(f"the class {value.__qualname__} cannot travel; send its name")
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    article = "an" if name[0].lower() in "aeio" else "a"
    return Refusal(f"{article} {name} cannot travel; send {_cure(value)}")


def _cure(value: Any) -> str:
    match value:
        case np.ndarray():
            return "numpy.asarray(it)"
        case enum.Enum():
            return "its .value"
        case bool() | int() | float() | complex() | str() | bytes() | bytearray() | list() | set() | frozenset():
            plain = next(base for base in type(value).__mro__ if base.__module__ == "builtins")
            return f"{plain.__name__}(it)"
        case tuple():
            return "tuple(it), or it._asdict() if it has names" if hasattr(value, "_fields") else "tuple(it)"
        case Mapping():
            return "dict(it)"
        case memoryview():
            return "bytes(it)"
        case datetime.datetime() if hasattr(value, "to_pydatetime"):
            return "it.to_pydatetime()"
        case decimal.Decimal() | fractions.Fraction() | uuid.UUID() | os.PathLike():
            return "str(it)"
        case BaseException():
            return "repr(it)"
    return _cure_of_class(value)


def _cure_of_class(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return "dataclasses.asdict(it)"
    for method, cure in (
        ("model_dump", "it.model_dump()"),
        ("cpu", "it.cpu().numpy()"),
        ("read", "what it.read() gives"),
    ):
        if callable(getattr(value, method, None)):
            return cure
    if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
        return "numpy.asarray(it)"
    if isinstance(value, Iterable):
        return "list(it)"
    if callable(value):
        return "its result"
    return "its content as a dict, a list, a str, bytes or an array"
