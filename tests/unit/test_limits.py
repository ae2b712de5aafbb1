"""What is too much of anything is refused where it is written, and where a stranger wrote it, where it is read."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import Any

import kombu.compression
import msgspec
import numpy as np
import pytest
from kombu.message import Message as TaskMessage
from msgspec.msgpack import Ext

from celerypipe import Batch, CodecError, Message, codec
from celerypipe.celery.request import refuse_packed_tasks
from celerypipe.codec import tags
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import DefinitionError
from celerypipe.mailbox.failure import said_of
from celerypipe.mailbox.onward import Step
from celerypipe.mailbox.onward import pack as pack_steps
from celerypipe.mailbox.onward import unpack as unpack_steps
from celerypipe.mailbox.record import Record
from celerypipe.mailbox.wire import RESULT_HEAD, as_published

pack = msgspec.msgpack.encode
MANY = tags.MAX_PARTS + 1


def framed(header: bytes, buffers: bytes = b"", kind: int = 0) -> bytes:
    gap = bytes(-len(header) % 16) if buffers else b""
    total = 16 + len(header) + len(gap) + len(buffers)
    return struct.pack("<2sBBIQ", b"cp", codec.CODEC_VERSION, kind, len(header), total) + header + gap + buffers


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


def test_arrays_and_messages_have_a_largest_number() -> None:
    empty = np.zeros(0, np.uint8)
    for payload, place in [([empty] * MANY, "payload"), (Batch((Message(),) * MANY), "payload.messages")]:
        with pytest.raises(CodecError, match=rf"{place}.*: more than 262,144 arrays, bytes and messages"):
            codec.encode([Message(payload)])
    with pytest.raises(CodecError, match="more than 262,144 arrays, bytes and messages"):
        codec.encode([Message(id="x")] * MANY)
    array = Ext(tags.NDARRAY, pack(["|u1", False, 0, 0]))
    with pytest.raises(CodecError, match="more than 262,144"):
        codec.decode_value(framed(pack([array] * MANY), kind=1))
    message = Ext(tags.MESSAGE, pack([None, {}, "", -1, {}, "", -1, "", 1]))
    with pytest.raises(CodecError, match="more than 262,144"):
        codec.decode_value(framed(pack([message] * MANY), kind=1))
    with pytest.raises(CodecError, match="262,145 messages; 262,144 travel together"):
        codec.decode(framed(pack([None, {}, "", -1, {}, "", -1, "", 1] * MANY)))
    fine = [empty] * (tags.MAX_PARTS - 1)
    assert len(codec.decode(codec.encode_joined([Message(fine)]))[0].payload) == len(fine)


@pytest.mark.parametrize(
    ("limits", "place"),
    [
        ({"timeout": 1e300}, "warp_configuration.timeout: must be less than or equal to 4000000000"),
        ({"window": 65_537}, "warp_configuration.window: must be less than or equal to 65536, not 65537"),
        ({"parallel": 10**9}, "warp_configuration.parallel: must be less than or equal to 4096, not 1000000000"),
        ({"batch": {"size": 10**6}}, "warp_configuration.batch.size: must be less than or equal to 65536"),
    ],
)
def test_a_definition_asks_for_no_more_than_there_can_be(limits: dict[str, Any], place: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        NodeDefinition(name="n", type="proc", mark="tasks.gpu.Detect", warped=True, warp_configuration=limits)
    assert place in str(caught.value)


def test_a_worker_unpacks_no_task() -> None:
    known = {name: kombu.compression.get_decoder(name) for name in kombu.compression.encoders()}
    assert "application/x-gzip" in known
    try:
        refuse_packed_tasks()
        packed = zlib.compress(bytes(1 << 24))
        bomb = TaskMessage(body=packed, headers={"compression": "application/x-gzip"})
        assert bomb.body is packed
        assert "unpacks none" in str(bomb.errors[0][1])
    finally:
        for name, decoder in known.items():
            kombu.compression.register(kombu.compression.get_encoder(name)[0], decoder, name)


RECORD: dict[str, Any] = {
    "mark": "tasks.gpu.Detect",
    "configuration": {"model": (1, np.float32(2)), "nan": float("nan")},
    "timeout": 1,
    "linger": 0.5,
    "slice": 0.2,
    "term": 10,
    "room": 64,
    "budget": 1 << 20,
    "neighbours": ("a", "b"),
}


def test_a_record_comes_back_as_exact_as_it_went() -> None:
    record = Record.read(codec.encode_value(RECORD))
    assert (record.configuration["model"], type(record.configuration["model"][1])) == ((1, 2), np.float32)
    assert (record.timeout, record.neighbours, type(record.timeout)) == (1, ("a", "b"), int)


@pytest.mark.parametrize(
    "change",
    [
        {"linger": "soon"},
        {"mark": None},
        {"room": 1.5},
        {"neighbours": [1]},
        {"configuration": []},
        {"configuration": {1: 2}},
        {"unknown": 1},
        {"batch": None},
    ],
)
def test_a_record_that_no_runner_wrote_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="no record of a node"):
        Record.read(codec.encode_value({**RECORD, **change}))
    for value in (None, [], 5, {}, "record", {"configuration": {}}):
        with pytest.raises(CodecError, match="no record of a node"):
            Record.read(codec.encode_value(value))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_time_that_is_none_is_no_reply(seconds: float) -> None:
    for times in ((seconds, 0.0), (0.0, seconds)):
        reply = RESULT_HEAD.pack(1, 0, b"r", *times, False, 0, 0, 0)
        assert as_published((b"1-0", [b"n", b"node", b"w", b"worker", b"r", reply])) is None
    with pytest.raises(CodecError, match="are no time"):
        unpack_steps(pack_steps([Step(b"r", 0.0, onward=(None, Step(b"r", seconds)))]))


@pytest.mark.parametrize(
    "said", [None, [], {}, {"kind": "failed"}, {"kind": [], "text": "", "traceback": ""}, "failed"]
)
def test_a_failure_that_no_activation_wrote_is_unreadable(said: Any) -> None:
    with pytest.raises(CodecError, match="a failure without kind"):
        said_of(codec.encode_value(said))
