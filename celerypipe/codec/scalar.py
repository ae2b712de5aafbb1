"""Single numbers and texts that msgpack has no word for as extensions: large ints, numpy's scalars and texts."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from msgspec.msgpack import Ext

from celerypipe.codec import tags
from celerypipe.codec.dtype import code_of
from celerypipe.codec.refusal import Refusal

_pack = msgspec.msgpack.Encoder().encode
_LEFTMOST, _BEYOND = -(1 << 63), 1 << 64


def _of_int(value: int) -> int | Ext:
    if _LEFTMOST <= value < _BEYOND:
        return value
    length = value.bit_length() // 8 + 1
    if length > tags.MAX_INTEGER:
        cure = "it.to_bytes(it.bit_length() // 8 + 1, 'little', signed=True)"
        raise Refusal(f"an int of {length} bytes cannot travel ({tags.MAX_INTEGER} do); send {cure}")
    return Ext(tags.INTEGER, value.to_bytes(length, "little", signed=True))


def _of_str(value: str) -> str | Ext:
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(tags.TEXT, value.encode("utf-8", "surrogatepass"))
    return value


def _of_complex(value: complex) -> Ext:
    return Ext(tags.COMPLEX, struct.pack("<dd", value.real, value.imag))


def _of_scalar(value: np.generic) -> Ext:
    return Ext(tags.SCALAR, _pack((code_of(value.dtype), value.tobytes())))


def _of_numpy_str(value: np.str_) -> Ext:
    return Ext(tags.NUMPY_STR, value.encode("utf-8", "surrogatepass"))


def _of_numpy_bytes(value: np.bytes_) -> Ext:
    return Ext(tags.NUMPY_BYTES, bytes(value))


#: Class → what makes an extension of it, or leaves it as it is.
WRITE: dict[type, Callable[[Any], Any]] = {
    int: _of_int,
    str: _of_str,
    complex: _of_complex,
    np.str_: _of_numpy_str,
    np.bytes_: _of_numpy_bytes,
    **dict.fromkeys((np.dtype(letter).type for letter in "?bhilqBHILQefdgFDGMmV"), _of_scalar),
}
