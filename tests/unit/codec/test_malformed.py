"""Bytes that are not what the codec writes: CodecError and nothing else, and no memory that they merely claim.

``CELERYPIPE_FUZZ`` is the number of mutations to try; 20,000 take a few seconds.
"""

from __future__ import annotations

import datetime
import os
import random
import struct
import sys
import threading
import tracemalloc
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from celerypipe import Array, Audio, Batch, Bytes, CodecError, Image, Message, Object, codec
from celerypipe.codec import tags
from tests.fuzz.words import framed, nested, pack

FUZZ = int(os.environ.get("CELERYPIPE_FUZZ", "20000"))


def message_with(payload: Any, buffers: bytes = b"") -> bytes:
    return framed(pack([payload, {}, "", -1, {}, "", -1, "id", 1.0]), buffers)


def decodes_or_refuses(data: bytes | memoryview) -> bool:
    try:
        codec.decode(data)
    except CodecError:
        return False
    return True


SAMPLES = [
    codec.encode_joined(messages)
    for messages in (
        [Message()],
        [Message({"text": "hello", "score": 0.5, "box": [1, 2, 3, 4], "ok": None})],
        [Message({"array": np.arange(6.0).reshape(2, 3), "scalar": np.float32(1), "raw": b"x" * 2000})],
        [Message(np.zeros(3, [("a", "u1"), ("b", "<f4", (2,))])), Message(np.asfortranarray(np.ones((2, 3))))],
        [
            Message(
                Batch((Message(Image(np.zeros((2, 2), "u1"))), Message(Audio(np.zeros(9, "i2"))), Message(Bytes(b"b"))))
            )
        ],
        [Message({(1, "a"): {2**70, "\ud800"}, b"k": frozenset({1j}), 1: bytearray(b"abc")}, {"m": Object(a=(1, 2))})],
        [Message([datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Rome")), datetime.timedelta(1)])],
        [
            Message(
                [
                    datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "z")),
                    np.datetime64("2026-01-01"),
                ]
            )
        ],
        [Message(Array(np.array(["a", "bc"]))), Message([np.str_("s"), np.bytes_(b"b"), np.zeros((0, 4))])],
    )
]


def flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 4)):
        data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, 0xC1, 0xDD, 0xDF, dice.randrange(256)))


def cut(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    del data[start : start + dice.randint(1, 9)]


def repeat(data: bytearray, dice: random.Random) -> None:
    start, end = sorted(dice.choices(range(len(data)), k=2))
    data[start:start] = data[start:end]


def fill(data: bytearray, dice: random.Random) -> None:
    data[:] = dice.randbytes(dice.randint(1, 200))


def header_of(data: bytes) -> tuple[bytes, bytes]:
    length = struct.unpack_from("<I", data, 4)[0]
    return data[16 : 16 + length], data[16 + length + -length % 16 :]


def test_mutated_bytes_decode_or_are_refused() -> None:
    mutations: list[Callable[[bytearray, random.Random], None]] = [flip, flip, flip, cut, repeat, fill]
    accepted = refused = 0
    for seed in range(FUZZ):
        dice = random.Random(seed)  # noqa: S311  # repeatable: the seed is in the failure
        sample = dice.choice(SAMPLES)
        header, buffers = header_of(sample)
        data = bytearray(header if seed % 4 else sample)
        dice.choice(mutations)(data, dice)
        try:
            fine = decodes_or_refuses(framed(bytes(data), buffers) if seed % 4 else bytes(data))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        accepted, refused = accepted + fine, refused + (not fine)
    assert accepted > FUZZ / 100, "the mutations are too coarse to reach what is behind the first check"
    assert refused > FUZZ / 10


def test_each_truncation_is_refused_and_so_is_each_addition() -> None:
    for sample in SAMPLES:
        for end in range(len(sample)):
            assert not decodes_or_refuses(sample[:end])
        assert not decodes_or_refuses(sample + b"\0")
        assert decodes_or_refuses(sample)


WORDS = nested(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=20)
    | st.sampled_from(
        ["<f8", "|O", "<U3", "<q", "|V0", "<M8[s]", "f4,f4", "|S9999999999", "Europe/Rome", "../x", "America"]
    ),
)


@settings(max_examples=max(FUZZ // 100, 100), deadline=None)
@given(WORDS, st.binary(max_size=100))
def test_any_extension_in_any_place_decodes_or_is_refused(word: Any, buffers: bytes) -> None:
    decodes_or_refuses(message_with(word, buffers))
    decodes_or_refuses(framed(pack(word)))
    decodes_or_refuses(framed(pack([*([word] * 9)])))


def test_a_version_that_is_not_ours_is_named_beside_ours() -> None:
    other = bytearray(SAMPLES[0])
    other[2] = 9
    with pytest.raises(CodecError, match=r"version 9 .* reads version 2; install the same celerypipe on both sides"):
        codec.decode(other)


@pytest.mark.parametrize(
    "foreign", [b"", b"cp", b"{}", b"\x80\x04\x95pickle and more", b"\x89PNG\r\n\x1a\n" + bytes(30)]
)
def test_foreign_bytes_are_shown(foreign: bytes) -> None:
    with pytest.raises(CodecError, match="no message of celerypipe") as caught:
        codec.decode(foreign)
    assert repr(foreign[:8]) in str(caught.value)


@pytest.mark.parametrize("thing", ["text", None, 7, [b"cp"]])
def test_what_is_no_bytes_at_all_is_refused(thing: Any) -> None:
    with pytest.raises(CodecError, match="decode takes bytes or a memoryview"):
        codec.decode(thing)


def test_a_value_is_not_taken_for_a_message_nor_the_reverse() -> None:
    with pytest.raises(CodecError, match="hold one value, not messages"):
        codec.decode(codec.encode_value([1]))
    with pytest.raises(CodecError, match="hold messages, not one value"):
        codec.decode_value(SAMPLES[0])


def test_fields_of_the_wrong_type_are_named() -> None:
    with pytest.raises(CodecError, match="malformed message: version: has to be of type int, not str"):
        codec.decode(framed(pack([None, {}, "", "1", {}, "", -1, "id", 1.0])))


def array_of(code: Any, offset: Any, *shape: Any) -> Ext:
    return Ext(tags.NDARRAY, pack([code, False, offset, *shape]))


CLAIMS = {
    "an array of a terabyte": message_with(array_of("|u1", 0, 1 << 40), bytes(16)),
    "a product beyond 64 bits": message_with(array_of("<f8", 0, 1 << 40, 1 << 40, 0, 1 << 62), bytes(16)),
    "a negative length": message_with(array_of("<f8", 0, -1, -8), bytes(64)),
    "an offset before the start": message_with(array_of("<f8", -32, 4), bytes(64)),
    "a wide dtype": message_with(array_of("|S9999999999", 0, 1), bytes(16)),
    "a dtype of objects": message_with(array_of("|O", 0, 1), bytes(16)),
    "a dtype in numpy's small language": message_with(array_of("(99999,99999)f8", 0, 1), bytes(16)),
    "a hundred dimensions": message_with(array_of("|u1", 0, *[1] * 100), bytes(16)),
    "bytes of a terabyte": message_with(Ext(tags.BUFFER, pack([0, 1 << 40])), bytes(16)),
    "bytes that begin inside and end outside": message_with(Ext(tags.BUFFER, pack([10, 10])), bytes(16)),
    "a scalar with a byte too many": message_with(Ext(tags.SCALAR, pack(["<f8", bytes(9)]))),
    "a list of four billion": framed(b"\xdd\xff\xff\xff\xff"),
    "a map of four billion": framed(b"\xdf\xff\xff\xff\xff\x01"),
    "a str of four gigabytes": framed(b"\xdb\xff\xff\xff\xffabc"),
    "an extension of four gigabytes": framed(b"\xc9\xff\xff\xff\xff\x01"),
    "lists in lists, each large": framed(b"\xdd\x00\x00\x40\x00" * 400 + bytes(16384)),
    "a long int": message_with(Ext(tags.INTEGER, b"\x7f" * 140000)),
    "ten thousand times the same megabyte": message_with(
        [Ext(tags.BUFFER, pack([0, 1 << 20]))] * 10000, bytes(1 << 20)
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_is_only_claimed_is_not_allocated(claim: str) -> None:
    data = CLAIMS[claim]
    decodes_or_refuses(SAMPLES[0])
    tracemalloc.start()
    try:
        assert not decodes_or_refuses(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(data) + 100_000


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01", b"\x91\x81\xa1k"], ids=["lists", "maps", "both"])
def test_nesting_without_end_is_refused_even_on_a_small_stack(opening: bytes) -> None:
    """The usual stack has 8 MiB. CPython 3.13 itself lets C code nest 10,000 deep, which needs 3 of them."""
    deep: Any = 1
    for _ in range(1000):
        deep = Ext(tags.TUPLE, pack([deep]))
    outcome: list[bool] = []

    def decode() -> None:
        outcome.append(decodes_or_refuses(framed(opening * 100_000 + b"\x01")))
        outcome.append(decodes_or_refuses(message_with(deep)))

    before = threading.stack_size(512 * 1024 if sys.version_info < (3, 13) else 4 * 1024 * 1024)
    try:
        thread = threading.Thread(target=decode)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert outcome == [False, False]


def test_deeper_than_the_codec_writes_is_refused() -> None:
    deep: Any = 1
    for _ in range(tags.MAX_DEPTH * 2):
        deep = Ext(tags.TUPLE, pack([deep]))
    with pytest.raises(CodecError, match="malformed message: nested more than 64 deep"):
        codec.decode(message_with(deep))


def test_a_zone_that_this_machine_does_not_know_says_what_to_install() -> None:
    for key in ("Mars/Olympus", "../../etc/passwd", "America", "\0", ""):
        with pytest.raises(CodecError, match=r"knows no time zone .* install the tzdata package"):
            codec.decode(message_with(Ext(tags.ZONE, key.encode())))


def test_a_decoded_array_keeps_its_bytes_alive() -> None:
    back = codec.decode(bytearray(codec.encode_joined([Message(np.arange(1000))])))[0].payload
    assert sys.getrefcount(back.base) >= 2
    assert back.sum() == 499500
