"""Messages as bytes and back, exactly: a small header and raw buffers. No pickle, no eval.

::

    offset  bytes
    0       2      b"cp"
    2       1      CODEC_VERSION
    3       1      what follows: 0 = messages, 1 = one value
    4       4      length of the header, little-endian
    8       8      length of everything, little-endian
    16      …      the header: msgpack; for messages one flat list, nine fields a message
    …       …      the buffers, each on a multiple of 16: arrays, and bytes above 1 KiB

What msgpack has no word for (a tuple, an array, a datetime, an int of 200 digits) is an extension in the header, see
:mod:`celerypipe.codec.tags`; an array there is its dtype, order, shape and place among the buffers.

Exact means the type as well: a tuple stays a tuple, a ``float32`` a ``float32``, a Fortran array a Fortran array, a
NaN keeps its bits. What cannot come back as it went is refused with its place and a cure: subclasses of the plain
types (an ``IntEnum``, a named tuple, an ``OrderedDict``), subclasses of ndarray, arrays of objects, other classes.
Three liberties: an array that is not contiguous arrives in C order, a dtype loses its ``metadata``, and a meta that is
no dict (a ``MappingProxyType``) arrives as one. Decoded arrays are read-only views on the bytes they came in.

Bytes that are not what :func:`encode` writes raise :class:`~celerypipe.errors.CodecError` and nothing else, and cost no
more memory than bytes that are really there could fill.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from celerypipe.codec.fields import FIELDS, message_of
from celerypipe.codec.reader import Reader
from celerypipe.codec.refusal import Refusal
from celerypipe.codec.tags import ALIGNMENT, MAX_DEPTH
from celerypipe.codec.writer import Segment, Writer, pack
from celerypipe.errors import CodecError
from celerypipe.message import Message

CODEC_VERSION: int = 1

__all__ = ["CODEC_VERSION", "Segment", "decode", "decode_value", "encode", "encode_joined", "encode_value"]

_MAGIC = b"cp"
_PREAMBLE = struct.Struct("<2sBBIQ")
_MESSAGES, _VALUE = 0, 1
_KINDS = {_MESSAGES: "messages", _VALUE: "one value"}
#: Above this many bytes the header is a segment of its own: one more segment costs less than copying it.
_JOIN_BELOW = 65536


def encode(messages: Sequence[Message]) -> list[Segment]:
    """Return any number of messages as segments that belong one after the other.

    Contiguous arrays and large bytes are segments without a copy: do not change them before the segments are sent.
    Raises :class:`CodecError` that names the place inside the payload, such as ``payload['boxes'][0]``.
    """
    numbered = len(messages) != 1

    def fields(writer: Writer) -> list[Any]:
        header: list[Any] = []
        for index, message in enumerate(messages):
            try:
                header += writer.message(message)
            except Refusal as refusal:
                raise (refusal.inside(f"messages[{index}].") if numbered else refusal) from None
        return header

    return _encode(fields, _MESSAGES)


def encode_joined(messages: Sequence[Message]) -> bytes:
    """Return the segments of :func:`encode` as one piece."""
    return _joined(encode(messages))


def decode(data: bytes | bytearray | memoryview) -> list[Message]:
    """Return the messages that :func:`encode` wrote; their arrays are read-only views on ``data``."""
    fields = _decode(data, _MESSAGES)
    if type(fields) is not list or len(fields) % len(FIELDS):
        raise CodecError("malformed message: its header is no list of messages")
    width = len(FIELDS)
    if len(fields) == width:
        return [message_of(fields)]
    return [message_of(fields[start : start + width]) for start in range(0, len(fields), width)]


def encode_value(value: Any) -> bytes:
    """Return one plain value (a configuration, a record of a failure) as bytes, as exact as a payload."""

    def content(writer: Writer) -> Any:
        try:
            return writer.tree(value)
        except Refusal as refusal:
            raise refusal.inside("value") from None

    return _joined(_encode(content, _VALUE))


def decode_value(data: bytes | bytearray | memoryview) -> Any:
    """Return the value that :func:`encode_value` wrote."""
    return _decode(data, _VALUE)


def _encode(content: Callable[[Writer], Any], kind: int) -> list[Segment]:
    try:
        try:
            writer = Writer()
            header = pack(content(writer))
        except (OverflowError, UnicodeEncodeError):
            # An int beyond 64 bits or a lone surrogate is in there: look at each int and str this time.
            writer = Writer(careful=True)
            header = pack(content(writer))
    except Refusal as refusal:
        raise CodecError(str(refusal)) from None
    except RecursionError:
        raise CodecError(f"the payload is nested too deep here; {MAX_DEPTH} levels travel") from None
    except ValueError as error:  # msgspec: one str or extension beyond 4 GiB
        raise CodecError(f"the payload cannot be written: {error}; put large content into arrays or bytes") from None
    return _framed(header, writer, kind)


def _framed(header: bytes, writer: Writer, kind: int) -> list[Segment]:
    if len(header) >= 1 << 32:
        raise CodecError(f"the header is too large ({len(header)} bytes); put large content into arrays or bytes")
    if not writer.segments:
        total = _PREAMBLE.size + len(header)
    else:
        gap = -len(header) % ALIGNMENT
        total = _PREAMBLE.size + len(header) + gap + writer.size
        writer.segments.insert(0, bytes(gap))
    preamble = _PREAMBLE.pack(_MAGIC, CODEC_VERSION, kind, len(header), total)
    if len(header) < _JOIN_BELOW:
        return [preamble + header, *writer.segments]
    return [preamble, header, *writer.segments]


def _joined(segments: list[Segment]) -> bytes:
    first = segments[0]
    return first if len(segments) == 1 and type(first) is bytes else b"".join(segments)


def _decode(data: bytes | bytearray | memoryview, kind: int) -> Any:
    if type(data) is not bytes:
        data = _flat(data)
    end = _PREAMBLE.size + _header_length(data, kind)
    try:
        return msgspec.msgpack.decode(data[_PREAMBLE.size : end], ext_hook=Reader(data, end).extension)
    except CodecError:
        raise
    # Whatever the libraries below meet in malformed bytes (msgspec, numpy, datetime and zoneinfo raise a dozen
    # kinds of errors between them), to the caller it is one thing.
    except Exception as error:
        raise CodecError(f"malformed message: {type(error).__name__}: {error}") from error


def _header_length(data: bytes | memoryview, kind: int) -> int:
    size = len(data)
    if size < _PREAMBLE.size or data[:2] != _MAGIC:
        shown = bytes(data[:8])
        raise CodecError(f"{size} bytes that begin with {shown!r} are no message of celerypipe")
    _, version, found, length, total = _PREAMBLE.unpack_from(data)
    if version != CODEC_VERSION:
        raise CodecError(
            f"these bytes are in version {version} of the codec, this celerypipe reads version {CODEC_VERSION}; "
            "install the same celerypipe on both sides"
        )
    if total != size:
        raise CodecError(f"malformed message: {size} bytes are here, {total} were written")
    if length > size - _PREAMBLE.size:
        raise CodecError(f"malformed message: a header of {length} bytes does not fit into {size}")
    if found != kind:
        raise CodecError(f"these bytes hold {_KINDS.get(found, f'kind {found}')}, not {_KINDS[kind]}")
    return int(length)


def _flat(data: object) -> bytes | memoryview:
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # not a buffer: the TypeError below
        return view.toreadonly() if view.format == "B" and view.ndim == 1 and view.contiguous else bytes(view)
    except TypeError:
        raise CodecError(f"a {type(data).__qualname__} is no message; decode takes bytes or a memoryview") from None
