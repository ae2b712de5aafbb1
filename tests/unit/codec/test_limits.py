"""What is too much in one encoding is refused where it is written, and where a stranger wrote it, where it is read."""

from __future__ import annotations

import struct
import sys
import tracemalloc

import numpy as np
import pytest
from msgspec.msgpack import Ext

from celerypipe import Batch, CodecError, Message, codec
from celerypipe.codec import tags
from tests.fuzz.words import framed, pack

#: One more than the tests allow: as many as are allowed take ten seconds to make.
MANY = 2048 + 1


def test_a_header_has_a_longest_length() -> None:
    with pytest.raises(CodecError, match=r"67,108,\d+ bytes long here, and 67,108,864 travel together; put large"):
        codec.encode([Message("x" * tags.MAX_HEADER)])
    assert len(codec.encode_joined([Message(b"x" * tags.MAX_HEADER)])) > tags.MAX_HEADER
    bomb = framed(b"\xdd" + struct.pack(">I", tags.MAX_HEADER) + bytes([0x80]) * tags.MAX_HEADER, kind=1)
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match=r"a header of 67,108,869 bytes; 67,108,864 are allowed"):
            codec.decode_value(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_arrays_and_messages_have_a_largest_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tags.MAX_PARTS == 262_144
    for module in (tags, sys.modules[codec.decode.__module__]):
        monkeypatch.setattr(module, "MAX_PARTS", MANY - 1)
    empty = np.zeros(0, np.uint8)
    for payload, place in [([empty] * MANY, "payload"), (Batch((Message(),) * MANY), "payload.messages")]:
        with pytest.raises(CodecError, match=rf"{place}.*: more than 2,048 arrays, bytes and messages"):
            codec.encode([Message(payload)])
    with pytest.raises(CodecError, match="more than 2,048 arrays, bytes and messages"):
        codec.encode([Message(id="x")] * MANY)
    array = Ext(tags.NDARRAY, pack(["|u1", False, 0, 0]))
    with pytest.raises(CodecError, match="more than 2,048"):
        codec.decode_value(framed(pack([array] * MANY), kind=1))
    message = Ext(tags.MESSAGE, pack([None, {}, "", -1, {}, "", -1, "", 1]))
    with pytest.raises(CodecError, match="more than 2,048"):
        codec.decode_value(framed(pack([message] * MANY), kind=1))
    with pytest.raises(CodecError, match="2,049 messages; 2,048 travel together"):
        codec.decode(framed(pack([None, {}, "", -1, {}, "", -1, "", 1] * MANY)))
    fine = [empty] * (tags.MAX_PARTS - 1)
    assert len(codec.decode(codec.encode_joined([Message(fine)]))[0].payload) == len(fine)
