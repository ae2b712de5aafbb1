"""What is kept of a node's outputs: payloads, and the notes about them as far as they are not those of the input.

A result is remembered by what its node looks at. A picture with the same pixels and another ``meta["path"]`` is the
same question, and must get its own path back; so notes that are the input's are taken from the input that asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from celerypipe import codec
from celerypipe.errors import CodecError
from celerypipe.message.message import Message
from celerypipe.message.ownership import own
from celerypipe.message.payload import Object

#: Classes whose equal values are the same to the last bit; all others are compared as they would travel.
_PLAIN = (str, int, bool, bytes, type(None))


class Form(msgspec.Struct, frozen=True, array_like=True):
    """How one output was made from its input: all of its meta, or what is inherited of it; its version; its timers.

    ``inherited``: the keys that were as in the input. An input that lacks one of them has to be computed by itself: it
    may be that the node sets it, and that the first input had it already. ``frozen``: the meta is an
    :class:`~celerypipe.message.payload.Object`.
    """

    everything: bool
    inherited: list[str]
    version: bool
    timers: bool
    frozen: bool


class Kept(NamedTuple):
    """The outputs of one message: their forms, and what is not the input's as the codec writes it."""

    forms: list[Form]
    head: bytes
    body: bytes

    @property
    def size(self) -> int:
        """How many bytes it is."""
        return len(self.head) + len(self.body)


def kept(outputs: Sequence[Message], parent: Message) -> Kept:
    """Return what is kept; nothing of it changes when the outputs do. :class:`CodecError` names what cannot travel."""
    forms, messages = [], []
    for output in outputs:
        form, added = _form(output, parent)
        forms.append(form)
        # No id and no time of birth: equal results are equal bytes.
        version = -1 if form.version else output.version
        messages.append(Message(output.payload, added, version=version, id="", created_at=0.0))
    written = codec.encode_apart(messages)
    if written.elsewhere is not None:
        raise CodecError("its payload is not here")
    if written.files:
        raise CodecError("the content of files travels to workers alone, and does not last")
    return Kept(forms, written.head, b"".join(written.body))


def restored(forms: Sequence[Form], messages: Sequence[Message], parent: Message) -> list[Message]:
    """Return outputs as the node would have made them from this input. They are to be stamped as any outputs are."""
    found = []
    for form, message in zip(forms, messages, strict=True):
        added = message.meta
        meta: Mapping[str, Any]
        if form.everything:
            meta = {**own(parent.meta), **added}
        elif form.inherited:
            meta = {**own({key: parent.meta[key] for key in form.inherited if key in parent.meta}), **added}
        else:
            meta = dict(added)
        found.append(
            Message(
                message.payload,
                Object(meta) if form.frozen else meta,
                version=parent.version if form.version else message.version,
                timers=dict(parent.timers) if form.timers else {},
            )
        )
    return found


def _form(output: Message, parent: Message) -> tuple[Form, dict[str, Any]]:
    meta = output.meta
    if meta is parent.meta:
        same, added = set(parent.meta), {}
    else:
        same = {key for key in parent.meta if key in meta and _same(meta[key], parent.meta[key])}
        added = {key: value for key, value in meta.items() if key not in same}
    # A copy of the input has all of its notes, if perhaps other values in some; so it will have those of another input.
    everything = (bool(same) or not parent.meta) and meta.keys() >= parent.meta.keys()
    inherited = [key for key in meta if key in same and type(key) is str]
    if not everything:
        added = {key: value for key, value in meta.items() if key not in inherited}
    timers = all(output.timers.get(name) == seconds for name, seconds in parent.timers.items())
    return Form(everything, inherited, output.version == parent.version, timers, type(meta) is Object), added


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) in _PLAIN:
        return bool(one == other)
    try:
        return codec.encode_value(one) == codec.encode_value(other)
    except CodecError:  # whoever encodes the output says what it is
        return False
