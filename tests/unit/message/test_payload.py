"""Payloads are frozen, an Object cannot be changed, and each knows about what it weighs."""

from __future__ import annotations

import copy
import dataclasses
import http
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from celerypipe import Array, Audio, Batch, Bytes, Image, Message, Object, Video
from celerypipe.message.payload import size_bytes

CLASSES: list[type[Any]] = [Audio, Image, Video, Bytes, Array, Batch]


@pytest.mark.parametrize("cls", CLASSES)
def test_a_payload_is_built_empty_and_cannot_be_changed(cls: type[Any]) -> None:
    payload = cls()
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(payload, field.name, None)
    assert not hasattr(payload, "__dict__")


def test_the_field_names_are_those_of_juturna() -> None:
    assert {cls.__name__: [field.name for field in dataclasses.fields(cls)] for cls in CLASSES} == {
        "Audio": ["audio", "sampling_rate", "audio_format", "channels", "start", "end"],
        "Image": ["image", "width", "height", "depth", "pixel_format", "timestamp"],
        "Video": ["video", "frames_per_second", "codec", "start", "end"],
        "Bytes": ["cnt"],
        "Array": ["array"],
        "Batch": ["messages"],
    }


def test_a_change_is_a_copy() -> None:
    image = Image(np.zeros((2, 3), "u1"), 3, 2)
    renamed = dataclasses.replace(image, pixel_format="L")
    assert (image.pixel_format, renamed.pixel_format) == ("", "L")
    assert renamed.image is image.image


def test_two_images_do_not_share_their_empty_array() -> None:
    assert Image().image is not Image().image


def test_an_object_reads_by_attribute_and_by_key() -> None:
    thing = Object(text="hello", n=1)
    assert (thing.text, thing["n"], dict(thing)) == ("hello", 1, {"text": "hello", "n": 1})
    assert Object(**thing, more=2).more == 2
    with pytest.raises(AttributeError, match="this Object has no 'txt'; it has 'text', 'n'"):
        _ = thing.txt
    with pytest.raises(AttributeError, match="it has nothing"):
        _ = Object().txt


CHANGES: list[Callable[[Any], Any]] = [
    lambda thing: thing.__setitem__("k", 1),
    lambda thing: thing.__delitem__("a"),
    lambda thing: setattr(thing, "a", 2),
    lambda thing: delattr(thing, "a"),
    lambda thing: thing.__ior__({"a": 2}),
    lambda thing: thing.update(a=2),
    lambda thing: thing.pop("a"),
    lambda thing: thing.popitem(),
    lambda thing: thing.clear(),
    lambda thing: thing.setdefault("k", 1),
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_object_cannot_be_changed(change: Callable[[Any], Any]) -> None:
    thing = Object(a=1)
    with pytest.raises(TypeError, match=r"an Object cannot be changed; build a new one: Object\(\*\*old, key=value\)"):
        change(thing)
    assert thing == {"a": 1}


def test_an_object_can_be_copied_hashed_and_pickled_by_celery_and_friends() -> None:
    thing = Object(a=1, b=Object(c=(2,)))
    for other in (copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))):  # noqa: S301  # our own
        assert type(other) is Object
        assert other == thing
        assert hash(other) == hash(thing)
    with pytest.raises(TypeError, match="unhashable"):
        hash(Object(a=[1]))


def test_a_payload_weighs_what_its_buffers_weigh() -> None:
    pixels = np.zeros((480, 640, 3), np.uint8)
    assert size_bytes(pixels) == size_bytes(Image(pixels)) == size_bytes(Array(pixels)) == 921600
    assert size_bytes(Audio(np.zeros(100, "f4"))) == 400
    assert size_bytes(Video((Image(pixels), Image(pixels)))) == 2 * 921600
    assert size_bytes(Bytes(b"x" * 77)) == size_bytes(b"x" * 77) == size_bytes("x" * 77) == 77
    assert size_bytes(Batch((Message(pixels), Message(Image(pixels))))) == 2 * 921600
    assert size_bytes({"a": pixels, "b": [pixels, (pixels,)]}) == 3 * 921600 + 2
    assert size_bytes(Object(a=1)) == 9
    assert size_bytes(np.float32(1)) == 4
    assert 0 < size_bytes(object()) < 1000
    assert size_bytes(Audio([1, 2])) == 16, "not what it says there, and no reason to fail"  # type: ignore[arg-type]
    assert size_bytes(Batch((1, Message(2)))) == 16


def test_what_is_derived_weighs_as_much_as_what_it_is_derived_from() -> None:
    class Frame(Image):
        pass

    number = http.HTTPStatus.OK
    assert size_bytes(Frame(np.zeros((480, 640, 3), np.uint8))) == 921600
    assert size_bytes(number) == 8
    assert size_bytes([number, 1]) == 16
