"""What goes through the codec comes back exactly: values, types, bits, dtypes, layouts."""

from __future__ import annotations

import dataclasses
import datetime
import math
import struct
import zoneinfo
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from celerypipe import Array, Audio, Batch, Bytes, Image, Message, Object, Video, codec
from celerypipe.codec.fields import FIELDS
from tests.unit.codec.equality import same


def through(payload: Any) -> Any:
    (message,) = codec.decode(codec.encode_joined([Message(payload)]))
    return message.payload


NAN_WITH_PAYLOAD = struct.unpack("<d", b"\x01\x02\x03\x00\x00\x00\xf8\xff")[0]
ROME = zoneinfo.ZoneInfo("Europe/Rome")
ODD_ZONE = datetime.timezone(datetime.timedelta(hours=-5, minutes=-13, microseconds=7), "odd")

VALUES = [
    *(None, True, False, 0, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**4000, -(10**4000)),
    *(0.0, -0.0, math.inf, -math.inf, math.nan, NAN_WITH_PAYLOAD, 5e-324, 1.0, complex(-0.0, math.nan), 1j),
    *("", "è日本🙂", "a\0b", "\ud800", "\ud83d\ude00", b"", b"x" * 1024, b"x" * 1025, bytearray(b""), bytearray(5000)),
    *([], (), {}, set(), frozenset(), [()], ([],), ((1,), [2]), [[1, 2], (1, 2)], {1, "a", (2,)}, frozenset({b"x"})),
    *({1: "a", None: 2, 1.5: 3, "k": {True: [1]}}, {(1, "a"): 2, b"k": 3}, {frozenset({1}): {2**70: "\udc00"}}),
    *({"a": {"b": {"c": [1, {"d": (1, 2)}]}}}, {math.inf: 1, np.float32(2): 3}, vars(SimpleNamespace(a=1, b=[2**65]))),
    *(Object(), Object(text="hi", more=Object(n=(1,))), {"o": [Object(a=2**80), Object(dict[Any, Any]({(1,): 2}))]}),
    *(datetime.date(1, 1, 1), datetime.time(23, 59, 59, 999999), datetime.time(1, 2, tzinfo=ODD_ZONE, fold=1)),
    *(datetime.datetime(9999, 12, 31, 23, 59, 59, 999999), datetime.datetime(2026, 10, 25, 2, 30, tzinfo=ROME, fold=1)),
    *(
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(2026, 1, 1, tzinfo=ODD_ZONE),
        ODD_ZONE,
        ROME,
    ),
    *(datetime.timedelta(-1, 5, 7), datetime.timedelta.max, datetime.timezone(datetime.timedelta(0), "UTC")),
]

SCALARS = [
    *(np.float16(1.1), np.float32(0.1), np.float64(0.1), np.longdouble("0.1"), np.float32(math.nan), np.bool_(True)),
    *(np.int8(-1), np.uint64(2**64 - 1), np.longlong(3), np.ulonglong(3), np.int64(3), np.intc(4), np.complex64(1j)),
    *(np.str_("nul at the end\0"), np.str_("\ud800"), np.bytes_(b"nul\0"), np.void(b"abc"), np.clongdouble(1j)),
    *(
        np.datetime64("2026-11-21T04:02:00.123456789"),
        np.datetime64("NaT"),
        np.timedelta64(5, "W"),
        np.timedelta64(25, ("s", 25)),
    ),
    np.array([(1, 2.5)], dtype=[("a", "u1"), ("b", ">f8")])[0],
]

NESTED = np.dtype([("id", "<u4"), ("box", [("xy", "<f4", (2, 2)), ("name", "<U3")]), ("raw", "V5")])
TITLED = np.dtype(
    {"names": ["a", "b"], "formats": ["u1", ">i8"], "titles": [None, "the b"], "offsets": [1, 16], "itemsize": 40}
)
CODES = (
    "? i1 u1 <i2 >i2 <u4 >u8 <f2 >f4 <f8 g <c8 >c16 G q >Q l S7 <U3 >U3 V9 M8 M8[ns] >M8[D] M8[25us] m8 <m8[W] S0 U0 V0"
)
DTYPES = [
    *CODES.split(),
    *(NESTED, TITLED, np.dtype([]), np.dtype("u1,i8", align=True)),
]


def _name(value: Any) -> str:
    """The same in every process: the order of a set is not."""
    return f"{type(value).__name__}-{'' if isinstance(value, (set, frozenset)) else repr(value)[:20]}"


@pytest.mark.parametrize("value", VALUES + SCALARS, ids=_name)
def test_a_value_comes_back_as_it_went(value: Any) -> None:
    for wrapped in (value, [value], {"k": value}, (value, [value]), Object(k=[1, value])):
        assert same(through(wrapped), wrapped)
        assert same(codec.decode_value(codec.encode_value(wrapped)), wrapped)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 5), (5, 4), (2, 3, 50), (1,) * 32], ids=str)
def test_an_array_of_any_dtype_and_shape_comes_back(dtype: Any, shape: tuple[int, ...]) -> None:
    dtype = np.dtype(dtype)
    content = np.random.default_rng(3).integers(1, 100, math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    if dtype.kind == "b":
        content %= 2
    if dtype.kind == "U":
        content = np.full(math.prod(shape) * dtype.itemsize // 4, ord("x"), dtype.newbyteorder("=").str[0] + "u4")
        content = content.astype(dtype.str[0] + "u4").view(np.uint8)
    array = np.ndarray(shape, dtype, content.tobytes())
    assert same(through(array), array)
    assert same(through({"a": [array, 1, array]})["a"][2], array)


def test_the_layout_of_an_array_is_kept_and_a_strided_one_becomes_contiguous() -> None:
    fortran = np.asfortranarray(np.arange(6000.0).reshape(30, 200))
    for array in (fortran, fortran[:, :2], fortran.T):
        back = through(array)
        assert same(back, array)
        assert (back.flags.c_contiguous, back.flags.f_contiguous) == (
            array.flags.c_contiguous,
            array.flags.f_contiguous,
        )
    for strided in (fortran[::2, ::3], fortran[::-1], np.broadcast_to(np.float32(3), (40, 50)), fortran.T[1:-1, 1:-1]):
        back = through(strided)
        assert same(back, strided)
        assert back.flags.c_contiguous
    permuted = np.arange(24000, dtype="i4").reshape(20, 30, 40).transpose(2, 0, 1)
    assert same(through(permuted), permuted)


def test_a_large_array_is_not_copied_on_its_way_out_or_in() -> None:
    pixels = np.arange(640 * 480 * 3, dtype=np.uint8).reshape(480, 640, 3)
    segments = codec.encode([Message(Image(image=pixels))])
    assert any(isinstance(part, memoryview) and np.shares_memory(np.asarray(part), pixels) for part in segments)
    for data in (b"".join(segments), memoryview(bytearray(b"".join(segments)))):
        back = codec.decode(data)[0].payload.image
        assert np.shares_memory(back, np.frombuffer(data, np.uint8))
        assert not back.flags.writeable
        assert back.flags.aligned
        with pytest.raises(ValueError, match="read-only"):
            back[0] = 1


def test_large_bytes_are_not_copied_on_their_way_out() -> None:
    content = bytes(5000)
    for payload in (content, {"k": [content]}, Bytes(content)):
        assert any(part is content for part in codec.encode([Message(payload)]))


def test_every_buffer_begins_on_a_multiple_of_sixteen() -> None:
    arrays = [np.ones(n, dtype) for n in (1, 3, 700, 2001) for dtype in ("u1", "f8", "c16", "i2")]
    data = codec.encode_joined([Message(arrays)])
    start = np.frombuffer(data, np.uint8).ctypes.data
    assert {(array.ctypes.data - start) % 16 for array in codec.decode(data)[0].payload} == {0}


def test_all_payload_classes_and_a_batch_of_them_come_back() -> None:
    image = Image(np.ones((4, 5, 3), np.uint8), 5, 4, 3, "RGB", 1.5)
    payloads = [
        Audio(np.linspace(-1, 1, 1600, dtype=np.float32).reshape(-1, 2), 16000, "pcm_f32", 2, 0.0, 0.05),
        image,
        Video((image, image), 25.0, "raw", 0.0, 0.08),
        Bytes(bytes(range(256)) * 9),
        Array(np.arange(3).astype("M8[s]")),
        Object(text="hi", box=(1, 2)),
        Image(),
        None,
        "plain",
    ]
    batch = Batch((*(Message(p, {"k": (1,)}, "node", 3, {"t": 0.5}) for p in payloads), Message(Batch())))
    assert same(through(batch), batch)
    assert same(through({"deep": [batch]}), {"deep": [batch]})


def test_all_fields_of_a_message_come_back() -> None:
    full = Message({"a": 1}, {"k": (1, 2)}, "node", 2**70, {"t": 0.25}, "origin", -5, "the id", 1_700_000_000)
    odd = Message(None, Object(k=1), creator="lone \ud800")
    messages = [full, odd, Message()]
    assert all(map(same, codec.decode(codec.encode_joined(messages)), messages))
    assert {field.name for field in dataclasses.fields(Message)} == set(FIELDS)
    assert tuple(field.name for field in dataclasses.fields(Message)) == FIELDS


def test_a_meta_that_is_a_proxy_arrives_as_a_dict() -> None:
    (back,) = codec.decode(codec.encode_joined([Message(1, MappingProxyType({"k": (1,)}))]))
    assert same(back.meta, {"k": (1,)})


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_any_number_of_messages_travels_in_one_piece(count: int) -> None:
    messages = [Message({"n": n, "array": np.arange(n * 10)}) for n in range(count)]
    segments = codec.encode(messages)
    assert b"".join(segments) == codec.encode_joined(messages)
    back = codec.decode(codec.encode_joined(messages))
    assert len(back) == count
    assert all(map(same, back, messages))


def test_a_header_beyond_64_kib_comes_back_with_its_buffers() -> None:
    payload = {
        "words": [f"word {n}" for n in range(20000)],
        "array": np.arange(5000),
        "tuples": [(n, n) for n in range(9)],
    }
    assert same(through(payload), payload)


def test_as_deep_as_the_limit_comes_back() -> None:
    for wrap in (lambda x: [x], lambda x: (x,), lambda x: {"k": x}, lambda x: Object(k=x), lambda x: {(1,): x}):
        value: Any = datetime.datetime(2026, 1, 1, tzinfo=ROME)
        for _ in range(64):
            value = wrap(value)
        assert same(through(value), value)


ATOMS = st.one_of(
    *(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(),
        st.binary(),
        st.binary().map(bytearray),
    ),
    *(st.text(st.characters()), st.text(st.characters(categories=["Cs", "L"])), st.dates(), st.timedeltas()),
    *(st.times(timezones=st.none() | st.just(datetime.UTC)), st.datetimes(timezones=st.none() | st.timezones())),
    st.integers(-(2**200), 2**200),
)
DTYPE = nps.array_dtypes(allow_subarrays=True) | nps.scalar_dtypes() | nps.nested_dtypes(max_leaves=4)
ARRAYS = nps.arrays(DTYPE, nps.array_shapes(min_dims=0, min_side=0, max_side=4)) | nps.arrays(
    nps.scalar_dtypes(), nps.array_shapes(min_dims=2)
).map(np.asfortranarray)
KEYS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
TREES = st.recursive(
    ATOMS | ARRAYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4).map(Object),
        st.builds(Message, inner, st.dictionaries(st.text(), inner, max_size=2)),
        st.lists(st.builds(Message, inner), max_size=3).map(lambda messages: Batch(tuple(messages))),
        inner.map(Array),
        inner.map(Image),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_any_tree_comes_back_exactly(tree: Any) -> None:
    assert same(through(tree), tree)
    assert same(codec.decode_value(codec.encode_value(tree)), tree)
