"""What a payload is told that cannot travel: where it stands in there, what it is, what to send instead."""

from __future__ import annotations

import reprlib
from typing import Any

from celerypipe.codec.cure import cure_of
from celerypipe.errors import CodecError

#: A cycle has a place of 64 parts; nobody reads the middle of it.
_LONGEST_PLACE = 160


class Refusal(CodecError):  # inside the codec only; it leaves as a CodecError
    """A value that cannot travel; on its way out of the tree it learns its place, innermost part first."""

    def __init__(self, text: str) -> None:
        self.place = ""
        self.text = text

    def inside(self, part: str) -> Refusal:
        """Put one more part in front of the place."""
        self.place = part + self.place
        return self

    def __str__(self) -> str:
        place = self.place
        if len(place) > _LONGEST_PLACE:
            place = f"{place[: _LONGEST_PLACE // 2]} … {place[-_LONGEST_PLACE // 2 :]}"
        return f"{place}: {self.text}" if place else self.text


def at_key(key: object) -> str:
    """Return the part of a place that a dictionary's key is."""
    return f"[{reprlib.repr(key)}]"


def refusal_of(value: Any) -> Refusal:
    """Return the refusal of a value whose class the codec does not know."""
    kind = type(value)
    if isinstance(value, type):
        return Refusal(f"the class {value.__qualname__} cannot travel; send {cure_of(value)}")
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    article = "an" if name[0].lower() in "aeio" else "a"
    return Refusal(f"{article} {name} cannot travel; send {cure_of(value)}")
