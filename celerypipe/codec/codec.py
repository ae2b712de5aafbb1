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
from typing import Any, NamedTuple

import msgspec

from celerypipe.codec.elsewhere import Elsewhere
from celerypipe.codec.encoding import encoding
from celerypipe.codec.fields import FIELDS, message_of
from celerypipe.codec.reader import Reader
from celerypipe.codec.refusal import Refusal
from celerypipe.codec.tags import ALIGNMENT, MAX_HEADER, MAX_PARTS
from celerypipe.codec.writer import Segment, Writer
from celerypipe.errors import CodecError
from celerypipe.message.files import File
from celerypipe.message.message import Message

CODEC_VERSION: int = 2
#: Versions that are read: what the first one wrote means the same today, and may be in a folder of dead letters.
READABLE = (1, CODEC_VERSION)

_MAGIC = b"cp"
_PREAMBLE = struct.Struct("<2sBBIQ")
_MESSAGES, _VALUE = 0, 1
_KINDS = {_MESSAGES: "messages", _VALUE: "one value"}
#: Above this many bytes the header is a segment of its own: one more segment costs less than copying it.
_JOIN_BELOW = 65536

Content = bytes | memoryview

_RAW_LIST = msgspec.msgpack.Decoder(list[msgspec.Raw])


class Apart(NamedTuple):
    """Messages in two parts: the head, and the segments of the body, ``size`` bytes.

    The body is empty if it is stored already: ``elsewhere``, or ``borrowed`` from the one that was given. ``files``:
    those whose content is to travel too.
    """

    head: bytes
    body: list[Segment]
    size: int
    elsewhere: Elsewhere | None = None
    borrowed: bool = False
    files: Sequence[File] = ()

    def joined(self) -> bytes:
        """Return both as one piece, as :func:`encode_joined` does."""
        # An empty array leaves a segment without bytes, which is no body: then there is no gap before it either.
        return b"".join((self.head, bytes(-len(self.head) % ALIGNMENT), *self.body)) if any(self.body) else self.head


def encode(messages: Sequence[Message]) -> list[Segment]:
    """Return any number of messages as segments that belong one after the other.

    Contiguous arrays and large bytes are segments without a copy: do not change them before the segments are sent.
    Raises :class:`CodecError` that names the place inside the payload, such as ``payload['boxes'][0]``.
    """
    writer, header = _written(messages)
    return _framed(header, writer, _MESSAGES)


def _written(messages: Sequence[Message], within: memoryview | None = None) -> tuple[Writer, bytes]:
    numbered = len(messages) != 1

    def fields(writer: Writer) -> list[Any]:
        header: list[Any] = []
        for index, message in enumerate(messages):
            try:
                header += writer.message(message)
            except Refusal as refusal:
                raise (refusal.inside(f"messages[{index}].") if numbered else refusal) from None
        return header

    return _encode(fields, within)


def encode_joined(messages: Sequence[Message]) -> bytes:
    """Return the segments of :func:`encode` as one piece."""
    return b"".join(encode(messages))


def encode_apart(messages: Sequence[Message], within: memoryview | None = None) -> Apart:
    """Return messages as their head and their body, which may travel by different ways.

    ``within``: a body that is stored already. If all buffers lie in it, they are referred to and not written again.
    """
    if within is not None:
        writer, header = _written(messages, within)
        if writer.borrowed and not writer.segments:
            head = _head(header, _MESSAGES, len(within))
            return Apart(head, [], len(within), borrowed=True, files=writer.files)
    writer, header = _written(messages)
    elsewhere = writer.elsewhere
    if elsewhere is not None:
        return Apart(_head(header, _MESSAGES, elsewhere.size), [], elsewhere.size, elsewhere, files=writer.files)
    return Apart(_head(header, _MESSAGES, writer.size), writer.segments, writer.size, files=writer.files)


def decode(data: bytes | bytearray | memoryview, body: Content | None = None) -> list[Message]:
    """Return the messages that :func:`encode` wrote; their arrays are read-only views on ``data``, or on ``body``.

    ``body``: what :func:`encode_apart` put apart from ``data``.
    """
    fields = _decode(data, _MESSAGES, body)
    if type(fields) is not list or len(fields) % len(FIELDS):
        raise CodecError("malformed message: its header is no list of messages")
    width = len(FIELDS)
    if len(fields) // width > MAX_PARTS:
        raise CodecError(f"malformed message: {len(fields) // width:,} messages; {MAX_PARTS:,} travel together")
    if len(fields) == width:
        return [message_of(fields)]
    return [message_of(fields[start : start + width]) for start in range(0, len(fields), width)]


def decode_payload(payload: Elsewhere, body: Content) -> Any:
    """Return the payload that was elsewhere, now that its body is here."""
    return _unpacked(payload.word, Reader(body if type(body) is bytes else _flat(body), 0))


def decode_head(head: bytes, blob: Any, lineage: Callable[[int], Any]) -> list[Message] | None:
    """Return messages whose payloads stay :class:`Elsewhere`, in ``blob``; None if their metas need the body too.

    ``lineage`` is asked with the number of each message.
    """
    end = _PREAMBLE.size + _header_length(head, _MESSAGES, whole=False)
    total = _PREAMBLE.unpack_from(head)[4]
    size = total - end - (-end % ALIGNMENT)
    absent = Reader(b"", 0)
    try:
        words = _RAW_LIST.decode(head[_PREAMBLE.size : end])
        messages: list[Message] = []
        for start in range(0, len(words), len(FIELDS)):
            word, *rest = words[start : start + len(FIELDS)]
            fields = [msgspec.msgpack.decode(each, ext_hook=absent.extension) for each in rest]
            messages.append(message_of([Elsewhere(bytes(word), size, blob, lineage(len(messages))), *fields]))
    except CodecError:
        return None
    except Exception as error:
        raise CodecError(f"malformed message: {type(error).__name__}: {error}") from error
    return messages


def encode_value(value: Any) -> bytes:
    """Return one plain value (a configuration, a record of a failure) as bytes, as exact as a payload."""
    writer, header = _value_written(value)
    return b"".join(_framed(header, writer, _VALUE))


def files_in(value: Any) -> Sequence[File]:
    """Return the files in a value, at any depth."""
    return _value_written(value)[0].files


def _value_written(value: Any) -> tuple[Writer, bytes]:
    def content(writer: Writer) -> Any:
        try:
            return writer.tree(value)
        except Refusal as refusal:
            raise refusal.inside("value") from None

    return _encode(content)


def decode_value(data: bytes | bytearray | memoryview) -> Any:
    """Return the value that :func:`encode_value` wrote."""
    return _decode(data, _VALUE)


def _encode(content: Callable[[Writer], Any], within: memoryview | None = None) -> tuple[Writer, bytes]:
    return encoding(content, lambda careful: Writer(careful, within))


def _preamble(header: bytes, kind: int, body: int) -> bytes:
    gap = -len(header) % ALIGNMENT if body else 0
    return _PREAMBLE.pack(_MAGIC, CODEC_VERSION, kind, len(header), _PREAMBLE.size + len(header) + gap + body)


def _head(header: bytes, kind: int, body: int) -> bytes:
    return _preamble(header, kind, body) + header


def _framed(header: bytes, writer: Writer, kind: int) -> list[Segment]:
    preamble = _preamble(header, kind, writer.size)
    body = [bytes(-len(header) % ALIGNMENT), *writer.segments] if writer.size else []
    if len(header) < _JOIN_BELOW:
        return [preamble + header, *body]
    return [preamble, header, *body]


def _decode(data: bytes | bytearray | memoryview, kind: int, body: Content | None = None) -> Any:
    if type(data) is not bytes:
        data = _flat(data)
    end = _PREAMBLE.size + _header_length(data, kind, whole=body is None)
    if body is None:
        reader = Reader(data, end)
    elif _PREAMBLE.unpack_from(data)[4] == end + -end % ALIGNMENT + len(body):
        reader = Reader(body if type(body) is bytes else _flat(body), 0)
    else:
        raise CodecError(f"malformed message: {len(body)} bytes are no body of it")
    return _unpacked(data[_PREAMBLE.size : end], reader)


def _unpacked(header: Content, reader: Reader) -> Any:
    try:
        return msgspec.msgpack.decode(header, ext_hook=reader.extension)
    except CodecError:
        raise
    # Whatever the libraries below meet in malformed bytes (msgspec, numpy, datetime and zoneinfo raise a dozen
    # kinds of errors between them), to the caller it is one thing.
    except Exception as error:
        raise CodecError(f"malformed message: {type(error).__name__}: {error}") from error


def _header_length(data: bytes | memoryview, kind: int, *, whole: bool = True) -> int:
    size = len(data)
    if size < _PREAMBLE.size or data[:2] != _MAGIC:
        shown = bytes(data[:8])
        raise CodecError(f"{size} bytes that begin with {shown!r} are no message of celerypipe")
    _, version, found, length, total = _PREAMBLE.unpack_from(data)
    if version not in READABLE:
        raise CodecError(
            f"these bytes are in version {version} of the codec, this celerypipe reads version {CODEC_VERSION}; "
            "install the same celerypipe on both sides"
        )
    if whole and total != size:
        raise CodecError(f"malformed message: {size} bytes are here, {total} were written")
    if length > MAX_HEADER:
        raise CodecError(f"malformed message: a header of {length:,} bytes; {MAX_HEADER:,} are allowed")
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
