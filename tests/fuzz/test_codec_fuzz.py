"""The codec under fire: whatever bytes come, values come out, or a CodecError, and nothing else.

``CELERYPIPE_FUZZ`` is the number of inputs; ``make fuzz`` tries a million.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celerypipe import CodecError, codec
from celerypipe.codec import Elsewhere
from celerypipe.mailbox.blob import packing
from celerypipe.mailbox.onward import unpack as unpack_steps
from celerypipe.mailbox.record import Record
from tests.fuzz.corpus import codec_inputs, mutated
from tests.fuzz.words import framed, nested, pack

INPUTS = int(os.environ.get("CELERYPIPE_FUZZ", "10000"))
#: Inputs that are made of each example of Hypothesis: three of its own, each harmed five times more.
EACH = 18
CORPUS = codec_inputs()
ODD = ["<f8", "|O", "<U3", "<q", "|V0", "<M8[s]", "f4,f4", "|S9999999999", "Europe/Rome", "../x", "\0", ""]

WORDS = nested(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.sampled_from(ODD) | st.binary(),
)
seen: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def _figures() -> Iterator[None]:
    """``make fuzz`` shows what this prints."""
    yield
    print(f"\ncodec: {seen['inputs']:,} inputs, {seen['decoded']:,} decoded, {seen['refused']:,} refused")


def decodes(data: bytes) -> bool:
    """Decode in every way there is; what comes out of it can be looked at and encoded again, or is refused."""
    fine = False
    seen["inputs"] += 1
    for decode in (codec.decode, codec.decode_value, Record.read, _head_and_payload, unpack_steps):
        try:
            value = decode(data)  # type: ignore[operator]
        except CodecError:
            continue
        fine = True
        if decode is codec.decode:
            with suppress(CodecError):  # numpy takes dtypes that the codec itself would not write
                codec.encode(value)
            repr([(message.id, message.meta) for message in value])
    seen["decoded" if fine else "refused"] += 1
    return fine


def _head_and_payload(data: bytes) -> Any:
    """A head as it passes a runner, and later its payload as a local node reads it."""
    messages = codec.decode_head(data, "blob", lambda number: number)
    for message in messages or ():
        if isinstance(message.payload, Elsewhere):
            codec.decode_payload(message.payload, bytes(64))
    return messages


def harmed(data: bytes, dice: random.Random) -> bytes:
    """Harm the header and keep the preamble right, so that what is behind the first check is reached; or anything."""
    if len(data) < 16 or not dice.randrange(4):
        return mutated(data, dice)
    length = struct.unpack_from("<I", data, 4)[0]
    header, buffers = data[16 : 16 + length], data[16 + length + -length % 16 :]
    return framed(mutated(header, dice), buffers, data[3])


@settings(max_examples=max(INPUTS // EACH // 2 + 1, 10), deadline=None, suppress_health_check=list(HealthCheck))
@given(WORDS, st.binary(max_size=100), st.integers(0, 2**32))
def test_whatever_hypothesis_thinks_of(word: Any, buffers: bytes, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311  # repeatable
    fields = pack([word, {}, "", -1, {}, "", -1, "id", 1.0])
    for data in (framed(fields, buffers, 0), framed(pack(word), buffers, 1), framed(pack([word] * 9), buffers, 0)):
        for _ in range(EACH // 3):
            decodes(data)
            data = harmed(data, dice)


def test_whatever_becomes_of_the_corpus() -> None:
    accepted = refused = 0
    for seed in range(INPUTS // 2):
        dice = random.Random(seed)  # noqa: S311  # repeatable: the seed is in the failure
        data = harmed(dice.choice(CORPUS), dice)
        try:
            fine = decodes(data)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r} on {data!r}") from error
        accepted, refused = accepted + fine, refused + (not fine)
    assert min(accepted, refused) > INPUTS / 100, "the harm is too coarse, or too fine, to find anything"


@pytest.mark.parametrize("place", range(len(CORPUS)))
def test_what_was_once_on_the_wire_is_still_read(place: int) -> None:
    assert decodes(CORPUS[place])


@settings(max_examples=max(INPUTS // 100, 50), deadline=None)
@given(st.sampled_from(["lz4", "zstd", "", "gzip"]), st.integers(-1, 10**12), st.binary(max_size=200), st.booleans())
def test_packed_bytes_hold_what_they_say_or_are_refused(way: str, size: int, content: bytes, whole: bool) -> None:
    pytest.importorskip("lz4.block")
    pytest.importorskip("zstandard")
    if whole and way in packing.WAYS:
        label, content = packing.pack(way, [content * 20])
        way, size = (label.partition(":")[0] or way), size % 5000
    try:
        plain = packing.unpack(f"{way}:{size}" if way else "", content)
    except CodecError:
        return
    assert not way or len(plain) == size
