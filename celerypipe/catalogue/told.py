"""A value of a configuration as others are told of it: its digest, and a short text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from celerypipe.codec.identity import identity, name_of
from celerypipe.errors import CodecError

#: Named in each fingerprint, and in each value that is shown by its digest.
ALGORITHM = "blake3"
#: Values whose text is longer are shown by their digest.
SHORT = 60
#: The digest of a default that has none.
UNTOLD = "default"
pack = msgspec.msgpack.Encoder().encode
_ATOMS = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class Told:
    """A value of the configuration of which only text and digest are known: a default that a worker told."""

    digest: str
    text: str = field(compare=False)


def told_of(value: Any, place: str = "value") -> Told:
    """Return a value's digest, and a text of it that is short; :class:`CodecError` if it has no digest."""
    if type(value) is Told:
        return value
    exact = identity(value, place)
    return Told(exact, _text(value) or f"{ALGORITHM}:{exact}")


def _text(value: Any) -> str:
    """The value as it is written in Python; nothing if that is long, or says less than the value is."""
    if (name := name_of(value)) is not None:
        text = " ".join(name)
    elif not _is_shown(value):
        return ""
    else:
        text = f"{type(value).__name__}({value.item()!r})" if isinstance(value, np.generic) else repr(value)
    return text if len(text) <= SHORT else ""


def _is_shown(value: Any) -> bool:
    match value:
        case list() | tuple():
            return len(value) <= SHORT and all(map(_is_shown, value))
        case dict():
            return len(value) <= SHORT and all(map(_is_shown, (*value, *value.values())))
        case np.bool_() | np.integer() | np.floating():
            return True
    return type(value) in _ATOMS


def default_digest(value: Any) -> str:
    """Return what stands for a default in a schema; the same for all that have no digest of their own."""
    try:
        return told_of(value).digest
    except CodecError:
        # It is what the code says, and the code is in the fingerprint beside it.
        return UNTOLD
