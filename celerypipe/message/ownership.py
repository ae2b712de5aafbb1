"""Who may write into what a message holds: nobody into its arrays, and everybody into lists and dicts of their own.

The rule is the same here and on a worker. What a node sends is as it was when it was sent, whatever the node does with
what it kept (:func:`sealed`). What a node is given has read-only arrays, and lists, dicts, sets and bytearrays that
nobody else has (:func:`own`); a node that says ``writable = True`` gets arrays of its own as well (:func:`writable`).
Its configuration is given to it in the same way, and what it remembers (``restore``) is always its own.

An array costs a view and no copy, but for one case: a node that still has the array it sent could write into it, as
one does that fills the same frame again and again. Only then is it copied. Who else has an array is told by the number
of references to it, once the message that was sent is let go of; an array over memory that is not its own, such as
that of a tensor, is copied without asking. What is neither a plain value, an array nor a payload goes as it is.
"""

from __future__ import annotations

import copy
import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from celerypipe.errors import CodecError
from celerypipe.message.message import Message
from celerypipe.message.payload import Array, Audio, Batch, Bytes, Image, Object, Video

Value = TypeVar("Value")
#: What becomes of an array.
Leaf = Callable[[NDArray[Any]], NDArray[Any]]

#: What nobody can change.
_ATOMS = frozenset({type(None), *np.ScalarType}) - {memoryview, np.void}


def own(value: Value) -> Value:
    """Return a value, a message for one, with lists and dicts of its own; its arrays stay, as views of their own."""
    return _made(value, _view)


def read_only(value: Value) -> Value:
    """Return a value as :func:`own` does, its arrays read-only, whatever they are to others."""
    return _made(value, _read_only)


def writable(value: Value) -> Value:
    """Return a value that nobody else has anything of, its arrays included."""
    return _made(value, _copy)


def as_sent(message: Message) -> Message:
    """Return a copy of a message that stays as it is now. Give the message away: what the caller has, somebody has."""
    made = replace(message, timers=dict(message.timers))
    del message
    return sealed(made)


def sealed(message: Message) -> Message:
    """Return this message, which is no node's yet, so that it stays as it is now: in place, for nobody else has it.

    What it was made from has to be let go of: what the caller has, somebody has.
    """
    if type(message.payload) in _ATOMS and not message.meta:
        return message
    look = _Look()
    _replace(message, look.array)
    if look.views and (kept := _kept(look.views)):
        _replace(message, lambda view: _apart(view) if id(view.base) in kept else view)
    return message


def _replace(message: Message, array: Leaf) -> None:
    object.__setattr__(message, "payload", _made(message.payload, array))
    if message.meta:
        object.__setattr__(message, "meta", _made(message.meta, array))


class _Look:
    """Makes read-only views; ``views``: those of arrays that somebody could write into."""

    __slots__ = ("views",)

    def __init__(self) -> None:
        self.views: list[NDArray[Any]] = []

    def array(self, value: NDArray[Any]) -> NDArray[Any]:
        view = value.view()
        if view.flags.writeable:
            view.flags.writeable = False
            self.views.append(view)
        elif isinstance(view.base, np.ndarray) and view.base.flags.writeable:  # a read-only view of a writable array
            self.views.append(view)
        return view


def _kept(views: list[NDArray[Any]]) -> set[int]:
    """Return the ids of the arrays under these views that somebody else has."""
    if len(views) == 1:
        return {id(views[0].base)} if _is_kept(views[0].base, 1) else set()
    ours = Counter(id(view.base) for view in views)
    return {id(view.base) for view in views if _is_kept(view.base, ours[id(view.base)])}


def _is_kept(base: Any, views: int) -> bool:
    """Has anybody the array under so many views of ours, or its memory? Else it is made read-only."""
    if type(base) is not np.ndarray or not base.flags.owndata or sys.getrefcount(base) - views > _ALONE:
        return True
    base.flags.writeable = False  # so that no view can be made writable, as none can on a worker
    return False


def _references(base: object) -> int:
    return sys.getrefcount(base)


_probe = np.zeros(1).view()
#: The references to an array, besides those of views, that looking for them makes.
_ALONE = _references(_probe.base) - 1


def _view(value: NDArray[Any]) -> NDArray[Any]:
    return value.view()


def _read_only(value: NDArray[Any]) -> NDArray[Any]:
    view = value.view()
    view.flags.writeable = False
    return view


def _copy(value: NDArray[Any]) -> NDArray[Any]:
    return value.copy(order="K")


def _apart(view: NDArray[Any]) -> NDArray[Any]:
    made = view.copy(order="K")
    made.flags.writeable = False
    return made.view()


def _made(value: Value, array: Leaf) -> Value:
    try:
        return _rebuilt(value, array)  # type: ignore[no-any-return]
    except RecursionError:
        raise CodecError("it is nested too deep, or holds itself; flatten it") from None


def _rebuilt(value: Any, array: Leaf) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    rebuild = _REBUILD.get(kind)
    return rebuild(value, array) if rebuild is not None else _of_subclass(value, array)


def _list(value: list[Any], array: Leaf) -> list[Any]:
    kinds = set(map(type, value))
    if kinds <= _ATOMS:
        return value.copy()
    # Records, which is what detectors and databases send: found out and copied by a few C calls.
    if kinds == _RECORDS and _ATOMS.issuperset(map(type, gc.get_referents(*value))):
        return [record.copy() for record in value]
    return [_rebuilt(item, array) for item in value]


def _dict(value: dict[Any, Any], array: Leaf) -> dict[Any, Any]:
    if _ATOMS.issuperset(map(type, value.values())):
        return value.copy()
    return {key: _rebuilt(item, array) for key, item in value.items()}


def _object(value: Object, array: Leaf) -> Object:
    return value if _ATOMS.issuperset(map(type, value.values())) else Object(_dict(value, array))


def _members(value: Iterable[Any], array: Leaf) -> Any:
    if type(value) is not set and _ATOMS.issuperset(map(type, value)):
        return value
    return type(value)(_rebuilt(item, array) for item in value)  # type: ignore[call-arg]


def _message(value: Message, array: Leaf) -> Message:
    return Message(
        _rebuilt(value.payload, array),
        _rebuilt(value.meta, array),
        value.creator,
        value.version,
        value.timers.copy(),
        value.origin,
        value.sequence,
        value.id,
        value.created_at,
    )


def _payload(kind: type) -> Callable[[Any, Leaf], Any]:
    fields = attrgetter(*kind.__slots__)  # type: ignore[attr-defined]
    return lambda value, array: kind(
        *[field if type(field) in _ATOMS else _rebuilt(field, array) for field in fields(value)]
    )


def _of_subclass(value: Any, array: Leaf) -> Any:
    """The same for what a worker is never sent; anything else than a container or an array goes as it is."""
    if isinstance(value, np.ndarray):
        return array(value)
    if isinstance(value, Message):
        return _message(value, array)
    if isinstance(value, dict) and not isinstance(value, Object):
        mapping = copy.copy(value)
        for key, item in value.items():
            mapping[key] = _rebuilt(item, array)
        return mapping
    if isinstance(value, list):
        items = copy.copy(value)
        items[:] = [_rebuilt(item, array) for item in value]
        return items
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(_rebuilt(item, array) for item in value)
    return copy.copy(value) if isinstance(value, set | bytearray) else value


_RECORDS = {dict}
_REBUILD: dict[type, Callable[[Any, Leaf], Any]] = {
    list: _list,
    dict: _dict,
    MappingProxyType: lambda value, array: _dict(dict(value), array),
    Object: _object,
    tuple: _members,
    set: _members,
    frozenset: _members,
    bytearray: lambda value, array: value.copy(),
    np.ndarray: lambda value, array: array(value),
    np.void: lambda value, array: value.copy(),
    Message: _message,
    Bytes: lambda value, array: value if type(value.cnt) is bytes else Bytes(_rebuilt(value.cnt, array)),
    Batch: lambda value, array: Batch(_rebuilt(value.messages, array)),
    Array: lambda value, array: Array(_rebuilt(value.array, array)),
    **{kind: _payload(kind) for kind in (Audio, Image, Video)},
}
