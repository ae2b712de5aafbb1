"""Values → what msgpack can write: plain trees as they are, everything else as extensions and buffers.

Most payloads are plain: dicts with str keys, lists, str, int, float, bool, None. A few C calls find that out (see
:mod:`celerypipe.codec.plain`), and such a tree goes to msgspec untouched. Only other trees are walked in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from msgspec.msgpack import Ext
from numpy.typing import NDArray

from celerypipe.codec import moment, scalar, tags
from celerypipe.codec.dtype import code_of
from celerypipe.codec.elsewhere import Elsewhere
from celerypipe.codec.fields import FIELDS, fields_of
from celerypipe.codec.plain import ATOMS, MAX_ITEMS, is_plain, too_many
from celerypipe.codec.refusal import Refusal, at_key, refusal_of
from celerypipe.message.files import File
from celerypipe.message.message import Message
from celerypipe.message.payload import Object

Segment = bytes | memoryview
Write = Callable[["Writer", Any, int], Any]

#: Bytes up to here travel in the header, and arrays up to here are copied: cheaper than a segment of their own.
_SMALL = 1024
_CAREFUL_ATOMS = frozenset({float, bool, type(None)})

pack = msgspec.msgpack.Encoder().encode
#: The fields of a message that may hold more than an atom.
_OPEN_FIELDS = tuple(FIELDS.index(name) for name in ("payload", "meta", "timers"))


class Writer:
    """One encoding: turns values into words for msgpack and collects the buffers on the way.

    ``careful``: ints and strs may be such that msgpack cannot write them; look at each. ``within``: a body in which
    arrays may lie already; ``borrowed`` counts the bytes of those that do.
    """

    __slots__ = (
        "atoms",
        "borrowed",
        "elsewhere",
        "files",
        "items_left",
        "parts_left",
        "segments",
        "size",
        "walked",
        "within",
    )

    def __init__(self, careful: bool = False, within: memoryview | None = None) -> None:
        self.elsewhere: Elsewhere | None = None
        self.within = (np.frombuffer(within, np.uint8).ctypes.data, len(within)) if within is not None else None
        self.borrowed = 0
        self.atoms = _CAREFUL_ATOMS if careful else ATOMS
        self.walked = range(len(FIELDS)) if careful else _OPEN_FIELDS
        self.segments: list[Segment] = []
        self.files: list[File] = []
        self.size = 0
        self.items_left = MAX_ITEMS
        self.parts_left = tags.MAX_PARTS

    def message(self, message: Message, depth: int = 0) -> list[Any]:
        """Return the nine words of a message."""
        self.part()
        fields = fields_of(message)
        for place in self.walked:
            value = fields[place]
            kind = type(value)
            if kind in self.atoms or (kind is dict and not value):
                continue
            if kind is Elsewhere and not depth:
                self.elsewhere = value
                fields[place] = msgspec.Raw(value.word)
                continue
            try:
                fields[place] = self.word(value, depth) if depth else self.tree(value)
            except Refusal as refusal:
                raise refusal.inside(f".{FIELDS[place]}" if depth else FIELDS[place]) from None
        return fields

    def tree(self, value: Any) -> Any:
        """Return the word for a whole payload; plain ones are their own words."""
        kind = type(value)
        if self.atoms is ATOMS:
            if (kind is dict or kind is list) and is_plain(value):
                return value
            if kind is Object and is_plain(dict(value)):
                return Ext(tags.OBJECT, pack(value))
        return self.word(value, 0)

    def word(self, value: Any, depth: int) -> Any:
        """Return what stands for the value in the header."""
        kind = type(value)
        if kind in self.atoms:
            return value
        write = _WRITE.get(kind)
        if write is None:
            raise refusal_of(value)
        if depth > tags.MAX_DEPTH:
            raise Refusal(f"nested more than {tags.MAX_DEPTH} deep, or a cycle; flatten it")
        return write(self, value, depth + 1)

    def sequence(self, items: Iterable[Any], depth: int) -> list[Any]:
        """Return the words of all items."""
        words: list[Any] = []
        for item in items:
            try:
                words.append(self.word(item, depth))
            except Refusal as refusal:
                raise refusal.inside(f"[{len(words)}]") from None
        self.count(len(words))
        return words

    def members(self, items: Iterable[Any], depth: int) -> list[Any]:
        """Return the words of the members of a set."""
        return self.sequence(items, depth)

    def count(self, items: int) -> None:
        """Take note of items that were written one by one: lists that hold one another can double without end."""
        self.items_left -= items
        if self.items_left < 0:
            raise too_many()

    def part(self) -> None:
        """Take note of an array, large bytes or a message."""
        self.parts_left -= 1
        if self.parts_left < 0:
            raise Refusal(f"more than {tags.MAX_PARTS:,} arrays, bytes and messages cannot travel together; send fewer")

    def file(self, file: File) -> tuple[Any, ...]:
        """Take note of a file, whose content travels by another way; return what stands for it."""
        self.part()
        self.files.append(file)
        return file.digest, file.name, file.size

    def borrow(self, address: int, length: int) -> int | None:
        """Return where in the body that is there already these bytes lie; None if they do not, or were taken before."""
        if self.within is None:
            return None
        start, size = self.within
        offset = address - start
        # A reader lets each byte be used once, so that a small message cannot fill the memory.
        if offset < 0 or offset + length > size or self.borrowed + length > size:
            return None
        self.borrowed += length
        self.part()
        return offset

    def buffer(self, content: Segment) -> int:
        """Take in a buffer and return its offset from the first one."""
        self.part()
        offset = self.size
        self.segments.append(content)
        gap = -len(content) % tags.ALIGNMENT
        if gap:
            self.segments.append(bytes(gap))
        self.size = offset + len(content) + gap
        return offset


def _list(writer: Writer, value: list[Any], depth: int) -> Any:
    if writer.atoms.issuperset(map(type, value)):
        return value
    return writer.sequence(value, depth)


def _dict(writer: Writer, value: dict[Any, Any], depth: int) -> Any:
    atoms = writer.atoms
    plain_keys = atoms.issuperset(map(type, value))
    if plain_keys and atoms.issuperset(map(type, value.values())):
        return value
    words: dict[Any, Any] = {}
    pairs: list[Any] = []
    for key, item in value.items():
        try:
            word = writer.word(item, depth)
            if plain_keys:
                words[key] = word
            else:
                pairs += (writer.word(key, depth), word)
        except Refusal as refusal:
            raise refusal.inside(at_key(key)) from None
    writer.count(len(value))
    return words if plain_keys else Ext(tags.PAIRS, pack(pairs))


def _object(writer: Writer, value: Object, depth: int) -> Ext:
    return Ext(tags.OBJECT, pack(_dict(writer, value, depth)))


def _tuple(writer: Writer, value: tuple[Any, ...], depth: int) -> Ext:
    plain = writer.atoms.issuperset(map(type, value))
    return Ext(tags.TUPLE, pack(value if plain else writer.sequence(value, depth)))


def _set(writer: Writer, value: set[Any], depth: int) -> Ext:
    return Ext(tags.SET, pack(writer.members(value, depth)))


def _frozenset(writer: Writer, value: frozenset[Any], depth: int) -> Ext:
    return Ext(tags.FROZENSET, pack(writer.members(value, depth)))


def _message(writer: Writer, value: Message, depth: int) -> Ext:
    return Ext(tags.MESSAGE, pack(writer.message(value, depth)))


def _payload(writer: Writer, value: Any, depth: int) -> Ext:
    tag, names = tags.PAYLOADS[type(value)]
    words = []
    for name in names:
        try:
            words.append(writer.word(getattr(value, name), depth))
        except Refusal as refusal:
            raise refusal.inside(f".{name}") from None
    return Ext(tag, pack(words))


def _file(writer: Writer, value: File, depth: int) -> Ext:
    return Ext(tags.FILE, pack(writer.sequence(writer.file(value), depth)))


def _bytes(writer: Writer, value: bytes, depth: int) -> bytes | Ext:
    if len(value) <= _SMALL:
        return value
    return Ext(tags.BUFFER, pack((writer.buffer(value), len(value))))


def _bytearray(writer: Writer, value: bytearray, depth: int) -> Ext:
    return Ext(tags.BYTEARRAY, pack((writer.buffer(bytes(value)), len(value))))


def _ndarray(writer: Writer, value: NDArray[Any], depth: int) -> Ext:
    code = code_of(value.dtype)
    fortran = value.flags.fnc
    if value.nbytes <= _SMALL:
        content: Segment = value.tobytes("F" if fortran else "C")
    else:
        flat = np.ascontiguousarray(value.T if fortran else value).reshape(-1).view(np.uint8)
        # One that may be written lies there only if somebody got round the rule, as torch does, and was written.
        fixed = writer.within and not value.flags.writeable
        place = writer.borrow(flat.ctypes.data, flat.nbytes) if fixed else None
        if place is not None:
            return Ext(tags.NDARRAY, pack((code, fortran, place, *value.shape)))
        content = flat.data
    return Ext(tags.NDARRAY, pack((code, fortran, writer.buffer(content), *value.shape)))


def _simple(writer: Writer, value: Any, depth: int) -> Any:
    return _SIMPLE[type(value)](value)


#: What holds nothing else and lies in no buffer.
_SIMPLE = {**scalar.WRITE, **moment.WRITE}
_WRITE: dict[type, Write] = {
    bytes: _bytes,
    bytearray: _bytearray,
    list: _list,
    dict: _dict,
    tuple: _tuple,
    set: _set,
    frozenset: _frozenset,
    Object: _object,
    Message: _message,
    File: _file,
    np.ndarray: _ndarray,
    **dict.fromkeys(_SIMPLE, _simple),
    **dict.fromkeys(tags.PAYLOADS, _payload),
}
