"""Results of other calls among the arguments of a call: how they travel, and how they come back to their places.

A call travels as ``(positional, named)``, or, where some of its arguments are results of other calls, as
``(positional, named, inputs)``. An input is its place, which is empty in the other two, and a result as its worker
published it: bytes, and the blob that they refer to. So a large result is fetched by the worker that needs it, and
nobody between the two has to read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from celerypipe.codec import Content
from celerypipe.errors import CodecError
from celerypipe.mailbox.blob.blob import Store, messages_in
from celerypipe.message.message import Message
from celerypipe.redis.connection import Client

#: Numbers and keys that lead to an argument, from ``(positional, named)`` on.
ArgumentPlace = tuple[Any, ...]


class Input(NamedTuple):
    """A result that is an argument: its place, and what its worker published of it."""

    place: ArgumentPlace
    data: bytes
    blob: str


def with_inputs(message: Message, client: Client, store: Store) -> Message:
    """Return a call with its inputs in their places. Raises :class:`Gone`, :class:`CodecError`."""
    payload = message.payload
    if type(payload) is not tuple or len(payload) != 3:
        return message
    arguments, fields = payload[:2], payload[2]
    if type(fields) is not tuple:
        raise CodecError("malformed call: its inputs are no tuple")
    inputs = [_input(each) for each in fields]
    references = {each.blob for each in inputs if each.blob}
    opened = store.open(client, references)
    contents = {reference: opened.content(reference) for reference in references}
    found = [(each.place, value_of(each.data, contents.get(each.blob))) for each in inputs]
    return message.with_changes(payload=placed(arguments, found), id=message.id, created_at=message.created_at)


def value_of(data: bytes, content: Content | None) -> Any:
    """Return the value of a result out of its bytes and the plain ones of its blob. Raises :class:`CodecError`."""
    messages = messages_in(data, content)
    if len(messages) != 1:
        raise CodecError(f"malformed result: {len(messages)} messages; a call has one")
    return messages[0].payload


def placed(arguments: Any, found: Iterable[tuple[ArgumentPlace, Any]]) -> Any:
    """Return arguments with values put into these places; what holds them is copied, the rest is as it was."""
    tree: dict[Any, Any] = {}
    try:
        for place, value in found:
            branch = tree
            for step in place[:-1]:
                branch = branch.setdefault(step, {})
            branch[place[-1]] = _Value(value)
        return _filled(arguments, tree)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise CodecError(f"malformed call: there is no place for an input: {error!r}") from None


class _Value(NamedTuple):
    value: Any


def _filled(holder: Any, tree: Mapping[Any, Any] | _Value) -> Any:
    if isinstance(tree, _Value):
        return tree.value
    if type(holder) is dict:
        return {**holder, **{key: _filled(holder[key], branch) for key, branch in tree.items()}}
    if type(holder) not in (list, tuple):
        raise TypeError(f"a {type(holder).__name__} holds no inputs")
    items: list[Any] = list(holder)
    for number, branch in tree.items():
        items[number] = _filled(items[number], branch)
    return items if type(holder) is list else tuple(items)


def _input(fields: Any) -> Input:
    match fields:
        case (tuple() as place, bytes() as data, str() as blob) if place:
            return Input(place, data, blob)
    raise CodecError("malformed call: an input is its place, its bytes and its blob")


def as_payload(arguments: tuple[Any, Any], inputs: Sequence[Input]) -> tuple[Any, ...]:
    """Return a call as it travels."""
    return (*arguments, tuple(map(tuple, inputs))) if inputs else arguments
