"""What travels inside a message: audio, images, video, bytes, objects, arrays, batches.

The field names are juturna's, so that node code carries over. All of them are frozen: a change is a copy
(``dataclasses.replace``). A message may also carry any plain value the codec knows (int, str, dict, ndarray, …).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import NoneType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray


def _empty() -> NDArray[Any]:
    return np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Samples of sound.

    ``audio``: samples, shape ``(n,)`` or ``(n, channels)``; ``sampling_rate``: Hz; ``start``, ``end``: seconds
    since the beginning of the stream. -1 and "" mean unknown, here and in the other payloads.
    """

    audio: NDArray[Any] = field(default_factory=_empty)
    sampling_rate: int = -1
    audio_format: str = ""
    channels: int = -1
    start: float = -1.0
    end: float = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One picture.

    ``image``: pixels, shape ``(height, width)`` or ``(height, width, depth)``; ``pixel_format``: such as ``"RGB"``;
    ``timestamp``: seconds.
    """

    image: NDArray[Any] = field(default_factory=_empty)
    width: int = -1
    height: int = -1
    depth: int = -1
    pixel_format: str = ""
    timestamp: float = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """Several pictures in a row: ``video`` is a tuple of :class:`Image`; ``start``, ``end`` in seconds."""

    video: tuple[Image, ...] = ()
    frames_per_second: float = -1.0
    codec: str = ""
    start: float = -1.0
    end: float = -1.0


@dataclass(frozen=True, slots=True)
class Bytes:
    """Raw bytes in ``cnt``."""

    cnt: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """One array of any dtype and shape."""

    array: NDArray[Any] = field(default_factory=_empty)


class Object(dict[str, Any]):
    """A dictionary with attribute access that cannot be changed: ``Object(text="hello").text``."""

    __slots__ = ()

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            has = ", ".join(map(repr, self)) or "nothing"
            raise AttributeError(f"this Object has no {key!r}; it has {has}") from None

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("an Object cannot be changed; build a new one: Object(**old, key=value)")

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = _refuse
    __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # frozen, so hashable when its values are
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Object, (dict(self),))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Several messages that a join put together: ``messages`` is a tuple of :class:`celerypipe.Message`."""

    messages: tuple[Any, ...] = ()


#: What counts eight bytes.
_NUMBERS = frozenset({NoneType, bool, int, float})


def size_bytes(payload: Any) -> int:
    """Return about how many bytes a payload weighs, without encoding it: buffers exactly, plain values roughly."""
    if type(payload) in _NUMBERS:
        return 8
    if isinstance(payload, (str, bytes, bytearray)):
        return len(payload)
    if isinstance(payload, (np.ndarray, np.generic, memoryview)):
        return int(payload.nbytes)
    if isinstance(payload, (list, tuple)):
        return len(payload) * 8 if _NUMBERS.issuperset(map(type, payload)) else sum(map(size_bytes, payload))
    if isinstance(payload, dict):
        return sum(map(size_bytes, payload)) + sum(map(size_bytes, payload.values()))
    if isinstance(payload, Batch):
        return sum(size_bytes(getattr(each, "payload", each)) for each in payload.messages)
    for each, content in _CONTENTS.items():
        if isinstance(payload, each):
            return size_bytes(getattr(payload, content))
    return 8 if isinstance(payload, (int, float)) else 64


#: The field of a payload that weighs something.
_CONTENTS = {Audio: "audio", Image: "image", Array: "array", Video: "video", Bytes: "cnt"}
