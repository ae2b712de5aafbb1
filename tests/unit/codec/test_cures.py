"""The advice in a refusal was tried: it runs as it is written, what it gives travels, and the value loses nothing."""

from __future__ import annotations

import array
import collections
import ctypes
import dataclasses
import datetime
import decimal
import enum
import fractions
import importlib
import importlib.util
import io
import ipaddress
import mmap
import os
import pathlib
import re
import sqlite3
import time
import types
import uuid
import xml.etree.ElementTree as ElementTree
import zoneinfo
from typing import Any

import attrs
import msgspec
import numpy as np
import pydantic
import pytest

import celerypipe
from celerypipe import CodecError, Message, codec
from celerypipe.codec.cure import UNKNOWN
from tests.unit.codec.equality import same

MOMENT = datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1)
#: What the code in a cure is written with.
WORDS: dict[str, Any] = {
    name: importlib.import_module(name)
    for name in (
        "attrs",
        "celerypipe",
        "dataclasses",
        "datetime",
        "msgspec",
        "numpy",
        "os",
        "traceback",
        "xml",
        "zoneinfo",
    )
}


class Colour(enum.Enum):
    RED = 1
    GREEN = re.compile("g")


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


class Tagged(str):
    lang: str


class Counted(list[int]):
    count_of: str


class Lines(np.ndarray[Any, Any]):
    unit: str


class Moment(datetime.datetime):
    pass


class Day(datetime.date):
    pass


class Clock(datetime.time):
    pass


class Span(datetime.timedelta):
    pass


class Offset(datetime.tzinfo):
    def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(hours=1, seconds=1)

    def dst(self, moment: datetime.datetime | None) -> None: ...

    def tzname(self, moment: datetime.datetime | None) -> str:
        return "odd"


class Nowhere(Offset):
    def utcoffset(self, moment: datetime.datetime | None) -> None: ...  # type: ignore[override]


class Place:
    def __fspath__(self) -> str:
        return "/a/b"


class Headers(collections.abc.Mapping[str, str]):
    """Has two values for one key."""

    pairs = (("a", "1"), ("a", "2"))

    def __getitem__(self, key: str) -> str:
        return dict(self.pairs)[key]

    def __iter__(self) -> Any:
        return iter([key for key, _ in self.pairs])

    def __len__(self) -> int:
        return len(self.pairs)

    def items(self) -> Any:
        return self.pairs


class Structure(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_double))


class Thing:
    def __init__(self) -> None:
        self.x = [1]


class Silent:
    __slots__ = ()


class Broken:
    """Raises whoever looks at it."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise OSError


class Grid:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.arange(3.0)


@dataclasses.dataclass
class Box:
    x: int
    inner: Any = None


@attrs.define
class Circle:
    r: float


class Struct(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    x: int
    when: datetime.date


Point = collections.namedtuple("Point", "x y")


def made(kind: type, *arguments: Any, **more: Any) -> Any:
    it = kind(*arguments)
    vars(it).update(more)
    return it


def masked() -> Any:
    return np.ma.masked_array([1.0, -9999.0], [False, True], fill_value=7.0)


def is_masked(got: Any) -> bool:
    again = np.ma.MaskedArray(got["data"], got["mask"], fill_value=got["fill_value"][()])
    return same(got["data"], np.array([1.0, -9999.0])) and again.tolist() == [1.0, None] and again.fill_value == 7.0


def raised() -> Exception:
    try:
        int("x")
    except ValueError as error:
        error.__cause__ = OSError("y")
        return error
    raise AssertionError


def reading(text: str, at: int) -> io.StringIO:
    file = io.StringIO(text)
    file.seek(at)
    return file


def mapped() -> mmap.mmap:
    memory = mmap.mmap(-1, 4)
    memory.write(b"abcd")
    return memory


def row() -> Any:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    return connection.execute("select 1 as a, 2 as a").fetchone()


def element(name: str, text: str, **attributes: str) -> Any:
    it = ElementTree.Element(name, attributes)
    it.text = text
    return it


RECORD = [("a", "i4"), ("b", "f8")]
RECORDS = np.array([(1, 2.0)], RECORD)
OBJECTS = np.zeros(2, [("a", "u1"), ("b", [("c", "O"), ("d", "i2")])])
TITLED = np.zeros(2, {"names": ["a"], "formats": ["i4"], "titles": [1]})  # type: ignore[call-overload]
MANY = np.zeros(2, [(f"field{number}", "u1") for number in range(9000)])

CASES: list[tuple[Any, Any]] = [
    (masked(), is_masked),
    (RECORDS.view(np.recarray), RECORDS),
    (np.rec.array([(1, 2.0)], dtype=RECORD)[0], RECORDS[0]),
    (np.zeros(2, np.dtype((np.record, RECORD))), np.zeros(2, RECORD)),
    (np.array([[1, "x"], [None, 2.5]], object), ((2, 2), [1, "x", None, 2.5])),
    (np.empty((0, 3), object), ((0, 3), [])),
    (OBJECTS, {"a": OBJECTS["a"], "b": {"c": [0, 0], "d": OBJECTS["b"]["d"]}}),
    (TITLED, {"a": TITLED["a"]}),
    (MANY, lambda got: list(got) == list(MANY.dtype.names) and same(got["field8999"], MANY["field8999"])),
    (made(lambda: np.arange(3).view(Lines), unit="m"), (np.arange(3), {"unit": "m"})),
    (memoryview(b"abcd"), b"abcd"),
    (memoryview(np.arange(6, dtype="f4").reshape(2, 3)), np.arange(6, dtype="f4").reshape(2, 3)),
    (array.array("f", [1.5, 2.5]), ("f", [1.5, 2.5])),
    (mapped(), b"abcd"),
    (Structure(1, 2.0), lambda got: bytes(got) == bytes(Structure(1, 2.0))),
    (Colour.RED, 1),
    (Colour.GREEN, "GREEN"),
    (Access.READ | Access.WRITE, 3),
    (Loud("text"), "text"),
    (made(Tagged, "text", lang="de"), ("text", {"lang": "de"})),
    (made(Counted, [1, 2], count_of="x"), ([1, 2], {"count_of": "x"})),
    (Tagged("text"), "text"),
    (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (collections.ChainMap({"a": 1}, {"a": 2}), [{"a": 1}, {"a": 2}]),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (Headers(), [("a", "1"), ("a", "2")]),
    (collections.deque([1, 2], 5), ([1, 2], 5)),
    (collections.deque([1, 2]), [1, 2]),
    (collections.UserString("text"), "text"),
    (collections.UserList([1, 2]), [1, 2]),
    ({"a": 1}.items(), [("a", 1)]),
    (range(3), [0, 1, 2]),
    (range(10**12), (0, 10**12, 1)),
    (slice(1, None, 2), (1, None, 2)),
    ((number for number in (1, 2)), [1, 2]),
    (Point(1, 2), {"x": 1, "y": 2}),
    (time.gmtime(0), lambda got: time.struct_time(*got) == time.gmtime(0) and got[1]["tm_zone"] in ("GMT", "UTC")),
    (os.stat(__file__), lambda got: os.stat_result(*got).st_mtime_ns == os.stat(__file__).st_mtime_ns),
    (Box(1, Box(2)), {"x": 1, "inner": {"x": 2, "inner": None}}),
    (made(Box, 1, more=2), {"x": 1, "inner": None, "more": 2}),
    (Circle(1.5), {"r": 1.5}),
    (Struct(1), {"x": 1}),
    (Model(x=1, when=datetime.date(2026, 1, 1)), {"x": 1, "when": datetime.date(2026, 1, 1)}),
    (Thing(), {"x": [1]}),
    (types.SimpleNamespace(a=1), {"a": 1}),
    (Box, "Box"),
    (os, "os"),
    (Grid(), np.arange(3.0)),
    (decimal.Decimal("1.10"), "1.10"),
    (fractions.Fraction(1, 3), "1/3"),
    (uuid.UUID(int=5), str(uuid.UUID(int=5))),
    (pathlib.PurePosixPath("a/b"), "a/b"),
    (Place(), "/a/b"),
    (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    (re.compile("a", re.IGNORECASE), lambda got: re.compile(*got) == re.compile("a", re.IGNORECASE)),
    (
        raised(),
        lambda got: "OSError: y" in "".join(got) and "ValueError: inv" in got[-1] and "in raised" in "".join(got),
    ),
    (reading("text", 2), "text"),
    (io.BytesIO(b"bytes"), b"bytes"),
    (row(), [("a", 1), ("a", 2)]),
    (element("a", "text", b="1"), b'<a b="1">text</a>'),
    (1 << 2_000_000, lambda got: int.from_bytes(got, "little", signed=True) == 1 << 2_000_000),
    (-(1 << 2_000_007), lambda got: int.from_bytes(got, "little", signed=True) == -(1 << 2_000_007)),
    (Moment(2026, 10, 25, 2, 30, tzinfo=MOMENT.tzinfo, fold=1), MOMENT),
    (Day(2026, 1, 2), datetime.date(2026, 1, 2)),
    (Clock(1, 2, 3, 4, datetime.UTC, fold=1), datetime.time(1, 2, 3, 4, datetime.UTC, fold=1)),
    (Span(1, 2, 3), datetime.timedelta(1, 2, 3)),
    (
        MOMENT.replace(tzinfo=Offset()),
        MOMENT.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1, seconds=1), "odd")),
    ),
    (MOMENT.replace(tzinfo=Nowhere()), lambda got: got[0] == MOMENT.replace(tzinfo=None) and "Nowhere" in got[1]),
    (datetime.time(1, tzinfo=Nowhere()), lambda got: got[0] == datetime.time(1) and "Nowhere" in got[1]),
]


def cured(it: Any, text: str | None = None, **words: Any) -> Any:
    """What the cure gives that is said for a value, once it has travelled."""
    with pytest.raises(CodecError) as caught:
        codec.encode_value({"k": [it]})
    _, found, cure = str(caught.value).partition("cannot travel; send ")
    if not found:
        _, _, cure = str(caught.value).partition("; send ")
    assert text is None or cure == text
    sent = eval(cure, {**WORDS, **words, "it": it})  # noqa: S307  # it is ours
    return codec.decode_value(codec.encode_value(sent))


@pytest.mark.parametrize(("it", "whole"), CASES, ids=[f"{type(it).__name__}-{n}" for n, (it, _) in enumerate(CASES)])
def test_a_cure_runs_as_it_is_written_and_loses_nothing(it: Any, whole: Any) -> None:
    got = cured(it)
    assert whole(got) if isinstance(whole, types.FunctionType) else same(got, whole)


def test_an_open_file_is_sent_from_its_beginning(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as file:
        file.seek(5)
        assert cured(file) == b"0123456789"
        reading, writing = os.pipe()
        os.write(writing, b"piped")
        os.close(writing)
        with open(reading, "rb") as pipe:
            assert cured(pipe) == b"piped"
    mapped = np.memmap(tmp_path / "file", "u1", "r")
    assert same(cured(mapped), np.frombuffer(b"0123456789", "u1"))


def test_where_nothing_is_known_it_says_what_could_travel() -> None:
    for it in (object(), Silent(), Broken(), NotImplemented):
        with pytest.raises(CodecError, match=re.escape(UNKNOWN)):
            codec.encode_value(it)
    for it in (print, raised, "".join):
        with pytest.raises(CodecError, match=r"cannot travel; send its result$"):
            codec.encode_value(it)


class Tensor:
    """As those of torch: one that has a gradient, or of a type that numpy has not, has no ``numpy`` of its own."""

    def __init__(self, dtype: str, has_gradient: bool = True) -> None:
        self.dtype, self.has_gradient = dtype, has_gradient

    def detach(self) -> Tensor:
        return Tensor(self.dtype, has_gradient=False)

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return Tensor("torch.float32", self.has_gradient)

    def numpy(self) -> Any:
        if self.has_gradient or "bfloat16" in self.dtype:
            raise RuntimeError("cannot be called")
        return np.ones(2, "f4")


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_tables_and_arrays_of_other_packages() -> None:
    assert same(cured(np.asmatrix([[1, 2]])), np.array([[1, 2]]))
    assert same(cured(Tensor("torch.float32")), np.ones(2, "f4"))
    assert same(cured(Tensor("torch.bfloat16")), np.ones(2, "f4"))
    sparse = pytest.importorskip("scipy.sparse")
    for kind in (sparse.csr_matrix, sparse.coo_array, sparse.lil_array):
        there = cured(kind(np.array([[0, 5], [0, 0]])))
        again = sparse.coo_array((there["data"], there["coords"]), there["shape"]).asformat(there["format"])
        assert same(again.toarray(), np.array([[0, 5], [0, 0]]))
    image = pytest.importorskip("PIL.Image")
    palette = image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert cured(palette)[0, 0].tolist() == [255, 0, 0, 255]
    assert same(cured(image.new("RGB", (2, 1), (1, 2, 3))), np.array([[[1, 2, 3]] * 2], "u1"))
    zone = pytest.importorskip("pytz").timezone("Europe/Berlin")
    assert same(cured(zone.localize(datetime.datetime(2026, 10, 25, 2, 30), is_dst=False)), MOMENT)
    assert cured(zone).key == "Europe/Berlin"
    gettz = pytest.importorskip("dateutil.tz").gettz("Europe/Berlin")
    assert cured(MOMENT.replace(tzinfo=gettz)).isoformat() == MOMENT.isoformat()
    shape = pytest.importorskip("shapely").Point(1, 2)
    assert importlib.import_module("shapely").from_wkb(cured(shape)) == shape
    string = np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else object
    assert cured(np.array([["a", "bb"]], string)) == ((1, 2), ["a", "bb"])


def test_a_message_of_another_class_and_a_long_text() -> None:
    class Mine(Message):
        __slots__ = ()

    it = Mine([1], {"k": 2}, sequence=3)
    for one in (it, "text"):
        with pytest.raises(CodecError) as caught:
            codec.encode([one])  # type: ignore[list-item]
        made = eval(str(caught.value).partition("; send ")[2], {**WORDS, "it": one})  # noqa: S307
        (back,) = codec.decode(codec.encode_joined([made]))
        assert (back.payload, back.sequence) == (([1], 3) if one is it else ("text", -1))
    long = "ü" * 40_000_000
    with pytest.raises(CodecError, match=r"put large content into arrays or bytes: a long text as it\.encode\(\)$"):
        codec.encode_value(long)
    assert codec.decode_value(codec.encode_value(long.encode())).decode() == long
    with (
        celerypipe.Runner(local=True) as runner,
        pytest.raises(CodecError, match=r"argument 'value' cannot travel: value: what"),
    ):
        runner.submit(importlib.import_module("tests.nodes.remote").add, long)


@pytest.mark.parametrize("has_pyarrow", [True, False])
def test_a_table_keeps_its_columns_index_and_types(monkeypatch: pytest.MonkeyPatch, has_pyarrow: bool) -> None:
    pd = pytest.importorskip("pandas")
    if has_pyarrow:
        pytest.importorskip("pyarrow")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found(name) if has_pyarrow else None)

    def back(got: Any) -> Any:
        if isinstance(got, bytes):
            return pd.read_parquet(io.BytesIO(got))
        table = pd.DataFrame.from_dict(got, orient="tight")
        for number, dtype in enumerate(got["dtypes"]):
            kind = pd.CategoricalDtype(*got["categories"][number]) if dtype == "category" else dtype
            table.isetitem(number, table.iloc[:, number].astype(kind))
        return table

    index = pd.MultiIndex.from_tuples([(1, "p"), (2, "q")], names=["i", None])
    plain = pd.DataFrame({"name": ["a", "b"], "score": np.array([1, 2], "f4")}, index=index)
    twice = pd.DataFrame([[1, 2.5], [3, 4.5]], columns=["a", "a"])
    mixed = pd.DataFrame({"a": [1, "x"], "b": [None, 2.5], 3: [True, False]})
    kinds = plain.assign(kind=pd.Categorical(["x", "y"], ["y", "x"], ordered=True))
    for it in (plain, twice, mixed, kinds, plain.iloc[:0]):
        pd.testing.assert_frame_equal(back(cured(it)), it, check_index_type=False)
    for series in (kinds["score"], kinds["kind"], kinds["score"].rename(None)):
        name, table = cured(series)
        pd.testing.assert_series_equal(back(table)["it"].rename(name), series)
    names, table = cured(plain.index)
    assert (names, back(table).to_numpy().tolist()) == (["i", None], [[1, "p"], [2, "q"]])
    name, table = cured(pd.Index([1.5], name="x"))
    assert (name, back(table)["it"].tolist()) == ("x", [1.5])
    assert back(cured(kinds["kind"].array, pandas=pd))["it"].cat.categories.tolist() == ["y", "x"]
    if has_pyarrow:
        rich = pd.DataFrame({"when": pd.date_range("2026", periods=2, tz="Europe/Berlin"), "n": pd.array([1, None])})
        pd.testing.assert_frame_equal(back(cured(rich)), rich)


def test_moments_and_tables_of_others() -> None:
    pd = pytest.importorskip("pandas")
    exact = pd.Timestamp("2026-01-01 00:00:00.000000001", tz="Europe/Berlin")
    text, zone = cured(exact)
    assert pd.Timestamp(text).tz_convert(zone) == exact
    assert cured(pd.Timestamp("2026-01-01 01:02:03.000004")) == datetime.datetime(2026, 1, 1, 1, 2, 3, 4)
    assert pd.Timedelta(cured(pd.Timedelta(1, "ns"))) == pd.Timedelta(1, "ns")
    assert pd.Period(*cured(pd.Period("2026-01", "M"))) == pd.Period("2026-01", "M")
    assert pd.Interval(*cured(pd.Interval(1, 2, "both"))) == pd.Interval(1, 2, "both")
    assert (cured(pd.NaT), cured(pd.NA)) == ("NaT", "<NA>")
    pl = pytest.importorskip("polars")
    table = pl.DataFrame({"a": [1, None], "b": ["x", "y"]}, schema={"a": pl.Int8, "b": pl.Categorical})
    for it, whole in ((table, table), (table.lazy(), table), (table["a"], table[["a"]])):
        assert pl.read_ipc(io.BytesIO(cured(it))).equals(whole)
    pa = pytest.importorskip("pyarrow")
    arrow = pa.table({"a": pa.array([1, None], pa.int8())})
    schema, batches = cured(arrow)
    schema = pa.ipc.read_schema(pa.py_buffer(schema))
    assert pa.Table.from_batches([pa.ipc.read_record_batch(each, schema) for each in batches], schema).equals(arrow)
    xr = pytest.importorskip("xarray")
    data = xr.DataArray(np.ones((2, 1), "f4"), {"x": [1, 2]}, ["x", "y"], "n", {"unit": "m"})
    assert xr.DataArray.from_dict(cured(data)).identical(data)


def test_numbers_of_other_packages() -> None:
    ml = pytest.importorskip("ml_dtypes")
    assert cured(ml.bfloat16(1.5)) == 1.5
    for dtype in (ml.bfloat16, ml.float8_e4m3fn, ml.int4):
        it = np.array([[1.5, -3.0]], dtype)
        assert same(cured(it), it.astype("f4"))
