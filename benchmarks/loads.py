"""What the messages carry: payloads from 100 B to 16 MiB, each with a check that it came back whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.yardsticks import TINY
from celerypipe import Array, Image

FRAME = (480, 640, 3)
FLOATS = 4 * 1024 * 1024


@dataclass(frozen=True)
class Load:
    """One kind of payload. ``once``, ``flight``, ``stored``: how many one at a time, in flight, for its yardstick.

    ``window``: how many are on their way in flight, as for the peers.
    ``is_array``: a node that sends it on as it came passes on a reference.
    """

    name: str
    make: Callable[[], Any]
    once: int
    flight: int
    stored: int
    is_array: bool = False
    window: int = 64


def _noise(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


def _frame() -> Image:
    height, width, depth = FRAME
    pixels = np.frombuffer(_noise(height * width * depth), np.uint8).reshape(FRAME)
    return Image(pixels, width, height, depth, "RGB")


def _floats() -> Array:
    floats = np.random.default_rng(0).random(FLOATS, np.float32)
    floats.flags.writeable = False  # it is sent many times, and nobody changes it: no copies
    return Array(floats)


TINY_LOAD = Load("100 B", lambda: TINY, 1200, 15000, 0)
FRAME_LOAD = Load("frame 640×480×3 (921,600 B)", _frame, 120, 240, 60, is_array=True)
ARRAY_LOAD = Load("float32 array, 16 MiB", _floats, 7, 16, 6, is_array=True, window=8)
LARGE = (
    Load("bytes, 64 KiB", lambda: _noise(1 << 16), 400, 1500, 200),
    Load("bytes, 1 MiB", lambda: _noise(1 << 20), 100, 150, 50),
    FRAME_LOAD,
    ARRAY_LOAD,
)


def raw(payload: Any) -> bytes:
    """The bytes of a payload."""
    match payload:
        case Image():
            return payload.image.tobytes()
        case Array():
            return payload.array.tobytes()
        case np.ndarray():
            return payload.tobytes()
    return bytes(payload)


def same(sent: Any, received: Any) -> bool:
    """Whether a payload came back whole: class, shape, dtype and checksum."""
    return _described(sent) == _described(received)


def _described(payload: Any) -> tuple[Any, ...]:
    inner: Any = None
    match payload:
        case Image():
            inner = payload.image
        case Array():
            inner = payload.array
        case np.ndarray():
            inner = payload
    form = None if inner is None else (inner.shape, inner.dtype)
    return type(payload), form, zlib.crc32(raw(payload))
