"""What msgspec hands over → values: the other half of the writer, and the one that trusts nobody."""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from celerypipe.codec import moment, tags
from celerypipe.codec.dtype import dtype_of
from celerypipe.codec.fields import message_of
from celerypipe.errors import CodecError
from celerypipe.message.files import arrived
from celerypipe.message.message import Message
from celerypipe.message.payload import Object

Read = Callable[["Reader", memoryview], Any]


class Reader:
    """One decoding: turns extensions into values.

    ``data`` is the whole; its buffers lie after ``header_end``. Each byte of them may be used once: with ten thousand
    references to the same megabyte a small message would fill the memory.
    """

    __slots__ = ("budget", "data", "depth", "parts", "start")

    def __init__(self, data: bytes | memoryview, header_end: int) -> None:
        self.data = data
        self.start = header_end + -header_end % tags.ALIGNMENT
        self.budget = len(data) - header_end
        self.depth = 0
        self.parts = 0

    def extension(self, tag: int, content: memoryview) -> Any:
        """Return the value of one extension; msgspec calls this for each."""
        read = _READ.get(tag)
        if read is None:
            raise CodecError(f"malformed message: no value has the number {tag}")
        return read(self, content)

    def items(self, content: memoryview) -> list[Any]:
        """Return the list that the content of an extension is."""
        items = self.value(content)
        if type(items) is not list:
            raise CodecError(f"malformed message: a {type(items).__name__} where a list has to be")
        return items

    def value(self, content: memoryview) -> Any:
        """Return the one value that the content of an extension is."""
        self.depth += 1
        if self.depth > tags.MAX_DEPTH + 2:
            raise CodecError(f"malformed message: nested more than {tags.MAX_DEPTH} deep")
        value = msgspec.msgpack.decode(content, ext_hook=self.extension)
        self.depth -= 1
        return value

    def part(self) -> None:
        """Take note of an array, bytes or a message."""
        self.parts += 1
        if self.parts > tags.MAX_PARTS:
            raise CodecError(f"malformed message: more than {tags.MAX_PARTS:,} arrays, bytes and messages")

    def message(self, content: memoryview) -> Message:
        """Return a message inside a payload."""
        self.part()
        return message_of(self.items(content))

    def place(self, offset: Any, length: int) -> int:
        """Return where in ``data`` a buffer begins, after a look whether all of it is there."""
        self.part()
        if type(offset) is not int or offset < 0 or length < 0 or self.start + offset + length > len(self.data):
            if length:
                raise CodecError(f"malformed message: it has no {length} bytes at {offset!r}")
            return 0
        self.budget -= length
        if self.budget < 0:
            raise CodecError("malformed message: its buffers overlap")
        return self.start + offset

    def buffer(self, content: memoryview) -> bytes | memoryview:
        """Return the bytes that an extension refers to."""
        offset, length = self.items(content)
        if type(length) is not int:
            raise CodecError(f"malformed message: a length of {length!r}")
        place = self.place(offset, length)
        return self.data[place : place + length]

    def array(self, content: memoryview) -> NDArray[Any]:
        """Return an array as a view on ``data``."""
        code, fortran, offset, *shape = self.items(content)
        dtype = dtype_of(code)
        if not all(type(length) is int and length >= 0 for length in shape):
            raise CodecError(f"malformed message: an array of shape {shape!r}")
        size = math.prod(shape) * dtype.itemsize
        place = self.place(offset, size)
        order: Literal["F", "C"] = "F" if fortran is True else "C"
        # Without content there is no buffer to lie in, and numpy wants one that is long enough for the offset.
        return np.ndarray(tuple(shape), dtype, self.data if size else b"", place if size else 0, None, order)


def _pairs(reader: Reader, content: memoryview) -> dict[Any, Any]:
    items = reader.items(content)
    return dict(zip(items[::2], items[1::2], strict=True))


def _object(reader: Reader, content: memoryview) -> Object:
    return Object(reader.value(content))


def _payload(cls: type) -> Read:
    return lambda reader, content: cls(*reader.items(content))


def _integer(reader: Reader, content: memoryview) -> int:
    if len(content) > tags.MAX_INTEGER:
        raise CodecError(f"malformed message: an int of {len(content)} bytes")
    return int.from_bytes(content, "little", signed=True)


def _text(reader: Reader, content: memoryview) -> str:
    return str(content, "utf-8", "surrogatepass")


def _complex(reader: Reader, content: memoryview) -> complex:
    return complex(*struct.unpack("<dd", content))


def _scalar(reader: Reader, content: memoryview) -> Any:
    code, raw = reader.items(content)
    dtype = dtype_of(code)
    if len(raw) != dtype.itemsize:
        raise CodecError(f"malformed message: {len(raw)} bytes for a scalar of dtype {dtype}")
    return np.ndarray((), dtype, raw)[()]


_READ: dict[int, Read] = {
    tags.TUPLE: lambda reader, content: tuple(reader.items(content)),
    tags.SET: lambda reader, content: set(reader.items(content)),
    tags.FROZENSET: lambda reader, content: frozenset(reader.items(content)),
    tags.PAIRS: _pairs,
    tags.OBJECT: _object,
    tags.MESSAGE: Reader.message,
    tags.INTEGER: _integer,
    tags.TEXT: _text,
    tags.COMPLEX: _complex,
    tags.BUFFER: lambda reader, content: bytes(reader.buffer(content)),
    tags.BYTEARRAY: lambda reader, content: bytearray(reader.buffer(content)),
    tags.NDARRAY: Reader.array,
    tags.SCALAR: _scalar,
    tags.NUMPY_STR: lambda reader, content: np.str_(_text(reader, content)),
    tags.NUMPY_BYTES: lambda reader, content: np.bytes_(content),
    tags.DATE: lambda reader, content: datetime.date(*reader.items(content)),
    tags.TIME: lambda reader, content: moment.time_of(reader.items(content)),
    tags.DATETIME: lambda reader, content: moment.datetime_of(reader.items(content)),
    tags.TIMEDELTA: lambda reader, content: datetime.timedelta(*reader.items(content)),
    tags.TIMEZONE: lambda reader, content: moment.timezone_of(reader.items(content)),
    tags.ZONE: lambda reader, content: moment.zone_of(content),
    tags.FILE: lambda reader, content: arrived(*reader.items(content)),
    **{tag: _payload(cls) for cls, (tag, _) in tags.PAYLOADS.items()},
}
