"""What cannot come back as it went is refused before it leaves, with its place and a cure."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import uuid
from typing import Any

import numpy as np
import pytest

from celerypipe import Array, Batch, CodecError, Image, Message, Object, codec


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


class Face(Object):
    __slots__ = ()


@dataclasses.dataclass
class Box:
    x: int


class Tensor:
    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray[Any, Any]:
        return np.zeros(1)


class Clock(datetime.tzinfo):
    def utcoffset(self, moment: datetime.datetime | None) -> None: ...
    def dst(self, moment: datetime.datetime | None) -> None: ...
    def tzname(self, moment: datetime.datetime | None) -> None: ...


Point = collections.namedtuple("Point", "x y")

REFUSED = [
    (decimal.Decimal(1), r"a decimal.Decimal cannot travel; send str\(it\)"),
    (uuid.UUID(int=1), r"a uuid.UUID cannot travel; send str\(it\)"),
    (pathlib.PurePosixPath("a"), r"a pathlib.*PurePosixPath cannot travel; send str\(it\)"),
    (Colour.RED, "Colour cannot travel; send it.value$"),
    (Name("x"), r"Name cannot travel; send str\(it\)"),
    (Face(a=1), r"Face cannot travel; send dict\(it\)"),
    (collections.OrderedDict(a=1), r"a collections.OrderedDict cannot travel; send dict\(it\)"),
    (Point(1, 2), r"Point cannot travel; send it._asdict\(\)"),
    (Box(1), r"Box cannot travel; send dataclasses.asdict\(it\)"),
    (Tensor(), r"Tensor cannot travel; send it.cpu\(\).numpy\(\)"),
    (memoryview(b"x"), r"a memoryview cannot travel; send bytes\(it\)"),
    (range(3), r"a range cannot travel; send list\(it\)"),
    (iter([1]), r"a list_iterator cannot travel; send list\(it\)"),
    (print, "a builtin_function_or_method cannot travel; send its result"),
    (Box, "the class Box cannot travel; send it.__qualname__"),
    (ValueError("x"), r"a ValueError cannot travel; send traceback.format_exception\(it\)"),
    (object(), "an object cannot travel; send its content as a dict, a list, a str, bytes or an array"),
    (np.array([object()]), r"an array of Python objects cannot travel; send \(it.shape, it.ravel\(\).tolist\(\)\)"),
    (
        np.zeros(2, [("a", "u1"), ("b", [("c", "O")])]),
        r"an array of Python objects cannot travel; send {'a': it\['a'\], ",
    ),
    (np.rec.array([(1,)], [("a", "i4")]), r"a numpy.*recarray cannot travel; send it.view\(numpy.dtype"),
    (np.ma.array([1], mask=[True]), r"a numpy.ma.*MaskedArray cannot travel; send {'data': it.data, 'mask': "),
    (np.zeros(1, np.dtype((np.record, [("a", "i4")]))), r"an array of numpy.record cannot travel; send it.view\("),
    (1 << 2_000_000, "an int of 250001 bytes cannot travel"),
    (
        datetime.datetime(2026, 1, 1, tzinfo=Clock()),
        r"a time zone of class .*Clock cannot travel; send \(it.replace\(tzinfo=None\), str\(it.tzinfo\)\)",
    ),
]


@pytest.mark.parametrize(("value", "text"), REFUSED, ids=lambda value: type(value).__name__)
def test_a_refusal_says_what_to_send_instead(value: Any, text: str) -> None:
    with pytest.raises(CodecError, match=rf"^payload: .*{text}"):
        codec.encode([Message(value)])
    with pytest.raises(CodecError, match=rf"^value\['k'\]\[1\]: .*{text}"):
        codec.encode_value({"k": (1, value)})


THING = decimal.Decimal(1)
PLACES = [
    ({"boxes": [THING]}, r"payload\['boxes'\]\[0\]"),
    (Object(a={"b": (1, THING)}), r"payload\['a'\]\['b'\]\[1\]"),
    (Batch((Message(1), Message(2), Message({"boxes": [THING]}))), r"payload\.messages\[2\]\.payload\['boxes'\]\[0\]"),
    (Batch((Message(1, {"note": THING}),)), r"payload\.messages\[0\]\.meta\['note'\]"),
    (Image(image=THING), r"payload\.image"),  # type: ignore[arg-type]  # as a wrong node may
    (Array(np.array([object()])), r"payload\.array"),
    ({(1, "a"): [THING]}, r"payload\[\(1, 'a'\)\]\[0\]"),
    ({("k", THING): 1}, r"payload\[\('k', Decimal\('1'\)\)\]\[1\]"),
    ([2**70, "\ud800", THING], r"payload\[2\]"),
]


@pytest.mark.parametrize(("payload", "place"), PLACES, ids=[place for _, place in PLACES])
def test_a_refusal_names_the_place_inside_the_payload(payload: Any, place: str) -> None:
    with pytest.raises(CodecError, match=f"^{place}: a decimal.Decimal|^{place}: an array of Python objects"):
        codec.encode([Message(payload)])
    with pytest.raises(CodecError, match=rf"^messages\[1\]\.{place}: "):
        codec.encode([Message(1), Message(payload)])


def test_a_refusal_names_the_field_of_the_message() -> None:
    with pytest.raises(CodecError, match=r"^meta\['k'\]: a decimal.Decimal cannot travel"):
        codec.encode([Message(1, {"k": THING})])
    for field, value, kind in (("version", "1.0", "int, not str"), ("created_at", np.float64(1), "float, not float64")):
        with pytest.raises(CodecError, match=f"^{field}: has to be of type {kind}"):
            codec.encode([Message(1).with_changes(**{field: value})])
    with pytest.raises(CodecError, match=r"^timers: has to be of type dict, not NoneType"):
        codec.encode([Message(1, timers=None)])  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="a str is no Message"):
        codec.encode(["text"])  # type: ignore[list-item]


def wrapped(wrap: Any, times: int, value: Any = 1) -> Any:
    for _ in range(times):
        value = wrap(value)
    return value


@pytest.mark.parametrize("times", [65, 5000])
@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: (x,), lambda x: {"k": x}, lambda x: Array(x)])
def test_too_deep_is_refused_and_never_overflows(wrap: Any, times: int) -> None:
    with pytest.raises(CodecError, match=r"^payload.*: nested more than 64 deep, or a cycle; flatten it"):
        codec.encode([Message([wrapped(wrap, times)])])


def test_a_cycle_is_refused_also_when_it_doubles() -> None:
    once: list[Any] = []
    once.append(once)
    twice: dict[str, Any] = {}
    twice.update(a=twice, b=(twice,))
    both: list[Any] = [1]
    both += [both, both]
    for cycle in (once, twice, both, wrapped(lambda x: [x, x], 40)):
        with pytest.raises(CodecError, match="or a cycle"):
            codec.encode([Message(cycle)])


def test_the_message_that_cannot_travel_leaves_the_next_one_alone() -> None:
    for _ in range(3):
        with pytest.raises(CodecError):
            codec.encode([Message({"k": THING, "array": np.zeros(9999)})])
        assert codec.decode(codec.encode_joined([Message({"k": 1})]))[0].payload == {"k": 1}
