"""What libraries say when a node writes into what it was given, and what is said beside it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance, brief, trace
from celerypipe.catalogue.refused_write import CURE, CURE_OF_MESSAGE, is_refused_write
from celerypipe.contract.contract import Output, Proc
from celerypipe.message.message import Message

GIVEN = np.frombuffer(bytes(96))


def _cv2(name: str, *arguments: Any) -> Callable[[Any], object]:
    cv2 = pytest.importorskip("cv2")
    return lambda given: getattr(cv2, name)(given.view(np.uint8).reshape(8, 4, 3), *arguments)


WRITES: dict[str, Callable[[Any], object]] = {
    "item": lambda given: given.__setitem__(0, 1),
    "+=": lambda given: given.__iadd__(1),
    "out=": lambda given: np.clip(given, 0, 1, out=given),
    "sort": lambda given: given.sort(),
    "partition": lambda given: given.partition(3),
    "put": lambda given: np.put(given, [0], 1),
    "place": lambda given: np.place(given, given == 0, 1),
    "flat": lambda given: given.flat.__setitem__(0, 1),
    "byteswap": lambda given: given.byteswap(inplace=True),
    "shuffle": lambda given: np.random.default_rng().shuffle(given),
    "random": lambda given: np.random.default_rng().random(12, out=given),
    "flag": lambda given: given.setflags(write=True),
    "memoryview": lambda given: given.data.__setitem__(0, 1.0),
    "DLPack": lambda given: given.__dlpack__(),
    "struct": lambda given: struct.pack_into("d", given, 0, 1.0),
    "rectangle": lambda given: _cv2("rectangle", (0, 0), (2, 2), 1)(given),
    "putText": lambda given: _cv2("putText", "x", (0, 0), 0, 1, 1)(given),
    "blur": lambda given: _cv2("blur", (3, 3), given.view(np.uint8).reshape(8, 4, 3))(given),
}


def _raised(write: Callable[[Any], object], *, writable: bool = False) -> BaseException:
    class Writes(Proc):
        def update(self, message: Message) -> Output:
            write(message.payload)
            return message

    Writes.writable = writable
    instance = Instance(Listing("writes", Writes, "plugin"), {}, name="writes")
    instance.warm()
    with pytest.raises(Exception) as caught:  # each library has its own
        instance.update(Message(GIVEN))
    return caught.value


@pytest.mark.parametrize("way", WRITES)
def test_the_cure_stands_beside_what_a_library_says(way: str) -> None:
    error = _raised(WRITES[way])
    assert brief(error).endswith(f"; {CURE}")
    assert str(error) in brief(error)
    assert CURE in trace(error)


def test_the_cure_stands_beside_an_error_that_one_of_them_led_to() -> None:
    def write(given: Any) -> None:
        try:
            given[0] = 1
        except ValueError as error:
            raise RuntimeError("no frame") from error

    error = _raised(write)
    assert brief(error) == f"RuntimeError: no frame; {CURE}"
    assert "assignment destination is read-only" in trace(error)


def test_a_message_that_was_to_be_changed_is_returned_anew() -> None:
    class Changes(Proc):
        def update(self, message: Message) -> Output:
            message.payload = 1  # type: ignore[misc]  # the mistake
            return message

    instance = Instance(Listing("changes", Changes, "plugin"), {}, name="changes")
    instance.warm()
    with pytest.raises(AttributeError) as caught:
        instance.update(Message(0))
    assert brief(caught.value) == f"FrozenInstanceError: cannot assign to field 'payload'; {CURE_OF_MESSAGE}"


@pytest.mark.parametrize(
    "error",
    [
        OSError(30, "Read-only file system", "/array"),
        ValueError("the database is read-only"),
        ValueError("array must not contain infs or NaNs"),
        AttributeError("property 'x' of 'Y' object has no setter"),
    ],
)
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert not is_refused_write(error)


def test_a_node_that_gets_copies_is_told_nothing() -> None:
    def write(given: Any) -> None:
        np.broadcast_to(given, (2, 12))[0, 0] = 1

    assert CURE not in brief(_raised(write, writable=True))
