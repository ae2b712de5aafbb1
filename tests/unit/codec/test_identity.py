"""What tells one configuration from another: every bit of it, and no order of a dict."""

from __future__ import annotations

import enum
import ipaddress
from pathlib import PurePath, PurePosixPath
from typing import Any

import numpy as np
import pytest

from celerypipe import CodecError, Object
from celerypipe.codec.digest import digest
from celerypipe.codec.identity import identity


class Mode(enum.Enum):
    FAST = 1
    EXACT = 2


class Level(enum.IntEnum):
    FAST = 1


def test_one_bit_of_one_element_makes_another() -> None:
    million = np.zeros(10**6)
    other = million.copy()
    other.view(np.uint8)[4_000_000] ^= 1
    assert identity({"mask": million}) != identity({"mask": other})
    assert identity({"mask": million}) == identity({"mask": million.copy()})
    close = np.array([0.123456789, 1]), np.array([0.1234567891, 1])
    assert repr(close[0]) == repr(close[1])
    assert identity(list(close[:1])) != identity(list(close[1:]))


def test_another_order_of_a_dict_makes_no_other_at_any_depth() -> None:
    keys: list[Any] = ["b", "a", 3, 1.5, True, None, (2, "x"), b"k", np.int64(7)]
    entries = [(key, {"deep": [index], "shallow": (index,)}) for index, key in enumerate(keys)]
    turned = [(key, dict(reversed(value.items()))) for key, value in reversed(entries)]
    assert identity(dict(entries)) == identity(dict(turned))
    assert identity([(Object(a=1, b={1: 2, 2: 1}),)]) == identity([(Object(b={2: 1, 1: 2}, a=1),)])
    assert identity([1, 2]) != identity([2, 1])
    assert digest({"a": 1, "b": 2}) != digest({"b": 2, "a": 1}), "in a payload the order counts"


DIFFERENT: list[Any] = [
    None, {}, [], (), Object(), {"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": [1]}, {"a": (1,)},
    {1: 1}, {"1": 1}, {"a": -0.0}, {"a": 0.0}, {"a": float("nan")}, {"a": np.float32(1)},
    {"a": np.ones(1)}, {"a": np.ones(1, "f4")},
    {"a": PurePosixPath("/x")}, {"a": "/x"}, {"a": ("path", "/x")}, {"a": Mode.FAST}, {"a": Mode.EXACT},
    {"a": Level.FAST}, {"a": {"b": 1}}, {"a": {"b": 1}, "c": 2}, {"a": [PurePosixPath("/x")]}, {PurePosixPath("/x"): 1},
]  # fmt: skip


def test_what_differs_in_type_value_or_place_is_another() -> None:
    assert len(set(map(identity, DIFFERENT))) == len(DIFFERENT)


def test_what_has_none_is_named_with_its_place() -> None:
    with pytest.raises(CodecError, match=r"weights\['deep'\]\[1\]: an ipaddress\.IPv4Address"):
        identity({"deep": [1, ipaddress.ip_address("127.0.0.1")]}, "weights")
    cycle: list[Any] = [PurePath("x")]
    cycle.append(cycle)
    with pytest.raises(CodecError, match=r"^configuration: nested too deep, or a cycle; flatten it$"):
        identity(cycle)
