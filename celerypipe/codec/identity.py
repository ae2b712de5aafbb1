"""The identity of a configuration: what tells one from another wherever two of them are compared.

It is the digest of what the codec writes, so that one bit of one element of a large array makes another one. Unlike in
a payload, dicts have no order in it, at any depth, as objects have none in JSON. A path and a member of an Enum, which
do not travel, have one too: they are what they are called.
"""

from __future__ import annotations

from enum import Enum
from pathlib import PurePath
from typing import Any

from blake3 import blake3

from celerypipe.codec.digest import digest
from celerypipe.codec.plain import ATOMS
from celerypipe.codec.writer import pack
from celerypipe.errors import CodecError
from celerypipe.message.payload import Object

#: Keeps what is known by its name apart from any bytes that a configuration may hold.
BY_NAME = "celerypipe: a value by its name"


def identity(value: Any, place: str = "configuration") -> str:
    """Return the identity of a configuration or a part of it, 64 hexadecimal digits.

    :class:`~celerypipe.errors.CodecError` for what has none: it begins with ``place``.
    """
    try:
        return digest(_comparable(value), place)
    except RecursionError:
        raise CodecError(f"{place}: nested too deep, or a cycle; flatten it") from None


def name_of(value: Any) -> tuple[str, str] | None:
    """Return the kind and the name of what is what it is called; None for anything else."""
    match value:
        case PurePath():
            return "path", str(value)
        case Enum():
            return "member", f"{type(value).__module__}.{type(value).__qualname__}.{value.name}"
    return None


def _comparable(value: Any) -> Any:
    """The value with the entries of its dicts in an order of their own, and names in the place of what has them."""
    kind = type(value)
    if kind is list or kind is tuple:
        return value if ATOMS.issuperset(map(type, value)) else kind(map(_comparable, value))
    if kind is dict or kind is Object:
        return kind(sorted(((_comparable(key), _comparable(item)) for key, item in value.items()), key=_rank))
    if (name := name_of(value)) is not None:
        return blake3(pack(name), derive_key_context=BY_NAME).digest()
    return value


def _rank(entry: tuple[Any, Any]) -> tuple[bool, str]:
    """Where an entry stands among those of its dict: keys that are texts by themselves, others by their digest."""
    key, _ = entry
    return (False, key) if type(key) is str else (True, digest(key, "key"))
