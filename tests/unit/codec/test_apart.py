"""Head and body apart: what goes on by reference comes back as exactly as what was written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from celerypipe import Message, Object, codec
from celerypipe.errors import CodecError
from celerypipe.message.payload import Image

FRAME = np.arange(480 * 640 * 3, dtype=np.uint8).reshape(480, 640, 3)


def stored(apart: codec.Apart) -> memoryview:
    return memoryview(b"".join(apart.body))


@pytest.mark.parametrize(
    "payload",
    [
        FRAME,
        Image(FRAME, 640, 480),
        {"a": [FRAME, b"x" * 5000]},
        "no body",
        3,
        np.zeros(0),
        [np.zeros((0, 4)), 1],
    ],
)
def test_head_and_body_are_one_message(payload: Any) -> None:
    message = Message(payload, meta={"n": 1}, creator="a", origin="o", sequence=7)
    apart = codec.encode_apart((message,))
    assert apart.size == len(stored(apart))
    (joined,) = codec.decode(apart.joined())
    (back,) = codec.decode(apart.head, stored(apart)) if apart.size else codec.decode(apart.head)
    for one in (joined, back):
        assert codec.encode_joined((one,)) == codec.encode_joined((message,))
    assert apart.joined() == codec.encode_joined((message,))


def test_a_body_of_another_length_is_refused() -> None:
    apart = codec.encode_apart((Message(FRAME),))
    with pytest.raises(CodecError, match="no body of it"):
        codec.decode(apart.head, stored(apart)[:-1])
    with pytest.raises(CodecError, match="are here"):
        codec.decode(apart.head)


def test_a_head_goes_on_without_its_body() -> None:
    message = Message({"frame": FRAME, "boxes": [(1, 2)]}, meta={"n": np.float32(1)}, creator="a", sequence=3)
    apart = codec.encode_apart((message, message.with_payload("small")))
    heads = codec.decode_head(apart.head, "blob", lambda number: number)
    assert heads is not None
    first, second = heads
    assert (first.meta, first.creator, first.sequence, first.id) == (message.meta, "a", 3, message.id)
    assert (first.payload.blob, first.payload.lineage, second.payload.lineage) == ("blob", 0, 1)
    onward = codec.encode_apart((first.with_meta(more=2),))
    assert not onward.body
    assert onward.elsewhere is first.payload
    (back,) = codec.decode(onward.head, stored(apart))
    assert np.array_equal(back.payload["frame"], FRAME)
    assert back.payload["boxes"] == [(1, 2)]
    assert back.meta == {"n": np.float32(1), "more": 2}
    assert codec.decode_payload(second.payload, stored(apart)) == "small"
    assert np.array_equal(codec.decode_payload(first.payload, stored(apart))["frame"], FRAME)


def test_a_meta_that_lies_in_the_body_needs_it() -> None:
    apart = codec.encode_apart((Message(1, meta={"mask": FRAME}),))
    assert codec.decode_head(apart.head, None, int) is None


def test_a_damaged_head_is_a_codec_error() -> None:
    head = codec.encode_apart((Message(FRAME),)).head
    for length in (3, 16, 20, len(head) - 1):
        with pytest.raises(CodecError):
            codec.decode_head(head[:length], None, int)


def test_an_array_that_goes_on_as_it_came_is_not_written_again() -> None:
    given = codec.encode_apart((Message(Image(FRAME, 640, 480)),))
    body = stored(given)
    (message,) = codec.decode(given.head, body)
    seen = message.with_meta(faces=2)
    result = codec.encode_apart((seen,), body)
    assert result.borrowed
    assert not result.body
    (back,) = codec.decode(result.head, body)
    assert np.array_equal(back.payload.image, FRAME)
    assert back.meta == {"faces": 2}


@pytest.mark.parametrize(
    "outputs",
    [
        lambda m: [m.with_payload(np.array(m.payload))],  # another array
        lambda m: [m.with_payload([m.payload, np.arange(5000)])],  # one of two
        lambda m: [m, m.with_meta(copy=1)],  # the same one twice
        lambda m: [m.with_payload(m.payload[:, ::2])],  # not in one piece
        lambda m: [m.with_payload(Object(n=1))],  # none
        lambda m: [],
    ],
)
def test_anything_else_is_written(outputs: Any) -> None:
    given = codec.encode_apart((Message(FRAME),))
    body = stored(given)
    sent = outputs(codec.decode(given.head, body)[0])
    result = codec.encode_apart(sent, body)
    assert not result.borrowed
    back = codec.decode(result.joined())
    assert [codec.encode_joined((one,)) for one in back] == [codec.encode_joined((one,)) for one in sent]


def test_a_part_of_an_array_goes_on_by_reference_too() -> None:
    given = codec.encode_apart((Message(FRAME),))
    body = stored(given)
    (message,) = codec.decode(given.head, body)
    result = codec.encode_apart((message.with_payload(message.payload[100:200]),), body)
    assert result.borrowed
    assert np.array_equal(codec.decode(result.head, body)[0].payload, FRAME[100:200])


def test_an_array_that_may_be_written_is_written_anew_wherever_it_lies() -> None:
    """A tool that does not ask, as torch does not, may have changed it there."""
    body = bytearray(b"".join(codec.encode_apart((Message(FRAME),)).body))
    within = memoryview(body).toreadonly()
    given = np.frombuffer(within, np.uint8).reshape(FRAME.shape)
    assert codec.encode_apart((Message(given),), within).borrowed
    body[0] = 7
    tensor = np.frombuffer(body, np.uint8).reshape(FRAME.shape)
    apart = codec.encode_apart((Message(tensor),), within)
    assert not apart.borrowed
    assert codec.decode(apart.head, stored(apart))[0].payload[0, 0, 0] == 7
