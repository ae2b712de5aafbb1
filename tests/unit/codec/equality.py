"""Equality to the last bit, which is what the codec promises."""

from __future__ import annotations

import dataclasses
import datetime
import struct
from typing import Any

import numpy as np


def same(one: Any, other: Any) -> bool:
    """Are they equal, types included?"""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.str_ | np.bytes_):
        return len(one) == len(other) and bool(one == other)
    if isinstance(one, np.ndarray | np.generic):
        return bool(
            one.dtype == other.dtype
            and one.dtype.char == other.dtype.char
            and one.dtype.isalignedstruct == other.dtype.isalignedstruct
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    match one:
        case float():
            return struct.pack("<d", one) == struct.pack("<d", other)
        case complex():
            return same(one.real, other.real) and same(one.imag, other.imag)
        case datetime.datetime() | datetime.time():
            return repr(one) == repr(other) and one.fold == other.fold
        case datetime.tzinfo():
            return repr(one) == repr(other)
        case dict():
            return same(list(one.items()), list(other.items()))
        case list() | tuple():
            return len(one) == len(other) and all(map(same, one, other))
        case set() | frozenset():
            return same(sorted(one, key=repr), sorted(other, key=repr))
        case _ if dataclasses.is_dataclass(one):
            return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    return bool(one == other)
