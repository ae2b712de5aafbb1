"""A numpy dtype as a short text or a few bytes, exactly, and back.

``"<f4"``, ``"|u1"``, ``"<U12"``, ``"<M8[ns]"``; ``"<q"`` for ``longlong``, which numpy tells from ``int64`` though it
writes both as ``<i8``. A structured dtype is bytes: its fields with offsets, titles, shapes, and its alignment.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec
import numpy as np

from celerypipe.codec.cure import cure_of_dtype
from celerypipe.codec.refusal import Refusal
from celerypipe.errors import CodecError

Dtype = np.dtype[Any]

#: numpy's numbers of its own types end here; beyond are types that other packages registered.
_NUMPY_TYPES = 24
_OBJECT, _VOID = 17, 20
_LONGLONG, _ULONGLONG = 9, 10
#: numpy.dtype reads a small language ("f4,(2,3)i8"); only the words of it that ``code_of`` writes come through.
_WORD = re.compile(
    r"[<>|](?:b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SUV]\d{1,10}|[mM]8(?:\[\d*\w{1,7}\])?|[qQ])"
)
#: Records inside records.
_MAX_DEPTH = 16
_MAX_BYTES = 65536


def code_of(dtype: Dtype) -> str | bytes:
    """Return what stands for the dtype on the wire."""
    number = dtype.num
    if number == _VOID and dtype.names is not None:
        code = msgspec.msgpack.encode(_record(dtype))
        if len(code) > _MAX_BYTES:
            raise Refusal(f"an array with {len(dtype.names)} fields cannot travel; send {cure_of_dtype(dtype)}")
        if not _same(dtype_of(code), dtype):
            raise Refusal(f"an array of dtype {dtype} cannot travel exactly; send {cure_of_dtype(dtype)}")
        return code
    return _word(dtype, dtype)


def _word(dtype: Dtype, whole: Dtype) -> str:
    """The code of a dtype that has no fields; ``whole`` has it in one of its own, or is it."""
    number = dtype.num
    if number == _OBJECT:
        raise Refusal(f"an array of Python objects cannot travel; send {cure_of_dtype(whole)}")
    if number >= _NUMPY_TYPES or (number == _VOID and dtype.type is not np.void):
        raise Refusal(f"an array of dtype {dtype} cannot travel; send {cure_of_dtype(whole)}")
    code = dtype.str
    if number in (_LONGLONG, _ULONGLONG):
        code = code[0] + dtype.char
    return code


def _record(dtype: Dtype, whole: Dtype | None = None, depth: int = 0) -> list[Any]:
    names, fields, whole = dtype.names, dtype.fields, whole or dtype
    if names is None or fields is None:
        raise TypeError(f"{dtype} is no record")
    if dtype.type is not np.void:
        cure = cure_of_dtype(whole) if depth else "it.view(numpy.dtype((numpy.void, it.dtype)))"
        raise Refusal(f"an array of numpy.record cannot travel; send {cure}")
    if depth > _MAX_DEPTH:
        raise Refusal(f"records nested more than {_MAX_DEPTH} deep cannot travel; send {cure_of_dtype(whole)}")
    parts: list[Any] = [dtype.itemsize, dtype.isalignedstruct]
    for name in names:
        part, offset, *title = fields[name]
        item, shape = part.subdtype or (part, ())
        code = _record(item, whole, depth + 1) if item.names is not None else _word(item, whole)
        if title and not isinstance(title[0], str):
            raise Refusal(f"the field {name!r} has a title that is no str; send {cure_of_dtype(whole)}")
        parts.append([name, title[0] if title else None, offset, code, list(shape)])
    return parts


def _same(one: Dtype, other: Dtype) -> bool:
    return one == other and one.isalignedstruct == other.isalignedstruct and one.fields == other.fields


@functools.lru_cache(maxsize=256)
def dtype_of(code: str | bytes) -> Dtype:
    """Return the dtype that the code stands for; anything but a code of :func:`code_of` is an error."""
    if isinstance(code, bytes):
        if len(code) > _MAX_BYTES:
            raise CodecError(f"malformed message: a dtype of {len(code)} bytes")
        return _from_record(msgspec.msgpack.decode(code), 0)
    return _from_word(code)


def _from_word(code: str) -> Dtype:
    if not isinstance(code, str) or not _WORD.fullmatch(code):
        raise CodecError(f"malformed message: {code!r} is no dtype")
    return np.dtype(code)


def _from_record(parts: list[Any], depth: int) -> Dtype:
    if depth > _MAX_DEPTH:
        raise CodecError(f"malformed message: records nested more than {_MAX_DEPTH} deep")
    itemsize, aligned, *fields = parts
    formats = []
    for _, _, _, code, shape in fields:
        item = _from_record(code, depth + 1) if isinstance(code, list) else _from_word(code)
        formats.append((item, tuple(shape)) if shape else item)
    description: dict[str, Any] = {
        "names": [field[0] for field in fields],
        "titles": [field[1] for field in fields],
        "offsets": [field[2] for field in fields],
        "formats": formats,
        "itemsize": itemsize,
    }
    return np.dtype(description, align=aligned is True)  # type: ignore[call-overload,no-any-return]  # a dict is one
