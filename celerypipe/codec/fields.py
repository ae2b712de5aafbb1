"""The nine fields of a message, out of it and into it; both ways their types are looked at."""

from __future__ import annotations

from operator import attrgetter
from types import MappingProxyType
from typing import Any

from celerypipe.codec.refusal import Refusal
from celerypipe.errors import CodecError
from celerypipe.message.message import Message
from celerypipe.message.payload import Object

#: The order in which they are written, and in which Message takes them.
FIELDS = ("payload", "meta", "creator", "version", "timers", "origin", "sequence", "id", "created_at")

_WANTED: tuple[tuple[type, ...], ...] = (
    (),
    (dict, Object),
    (str,),
    (int,),
    (dict,),
    (str,),
    (int,),
    (str,),
    (float, int),
)
_values = attrgetter(*FIELDS)


def fields_of(message: Message) -> list[Any]:
    """Return the fields of a message; a meta that is a MappingProxyType as a dict."""
    if type(message) is not Message:
        cure = "celerypipe.Message(*[getattr(it, name) for name in celerypipe.Message.__match_args__])"
        cure = cure if isinstance(message, Message) else "celerypipe.Message(it)"
        raise Refusal(f"a {type(message).__qualname__} is no Message; send {cure}")
    fields = list(_values(message))
    wrong = _wrong(fields)
    if wrong is not None and type(message.meta) is MappingProxyType:
        fields[1] = dict(message.meta)
        wrong = _wrong(fields)
    if wrong is not None:
        place, text = wrong
        raise Refusal(text).inside(FIELDS[place])
    return fields


def message_of(fields: list[Any]) -> Message:
    """Return the message of its fields."""
    if len(fields) != len(FIELDS):
        raise CodecError(f"malformed message: {len(fields)} fields instead of {len(FIELDS)}")
    wrong = _wrong(fields)
    if wrong is not None:
        raise CodecError(f"malformed message: {FIELDS[wrong[0]]}: {wrong[1]}")
    return Message(*fields)


def _wrong(fields: list[Any]) -> tuple[int, str] | None:
    _, meta, creator, version, timers, origin, sequence, ident, created_at = fields
    # Written out, because it is done for each message twice: a loop takes four times as long.
    if (
        (type(meta) is dict or type(meta) is Object)
        and type(creator) is str
        and type(version) is int
        and type(timers) is dict
        and type(origin) is str
        and type(sequence) is int
        and type(ident) is str
        and (type(created_at) is float or type(created_at) is int)
    ):
        return None
    for place, (value, kinds) in enumerate(zip(fields, _WANTED, strict=True)):
        if kinds and type(value) not in kinds:
            return place, f"has to be of type {kinds[0].__name__}, not {type(value).__qualname__}"
    return None
