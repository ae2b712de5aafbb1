"""A message: what travels along a link.

Frozen; a change is a copy with an id of its own. Values know no machines: a message cannot send itself.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from celerypipe.message.files import File
from celerypipe.message.payload import Array, Audio, Batch, Bytes, Image, Object, Video


class _Ids:
    """Ids that are unique between processes (a random prefix) and cheap within one (a counter)."""

    def __init__(self) -> None:
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.prefix = os.urandom(6).hex()
        self.count: Callable[[], int] = itertools.count().__next__

    def __call__(self) -> str:
        return f"{self.prefix}-{self.count()}"


new_id = _Ids()


#: Bits of an int that Python writes in decimals, and reads again: 4,300 digits.
LONGEST_INT = 14_000


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What travels along a link.

    ``payload``: What it carries: plain values, arrays, or an ``Image``, ``Audio``, ``Video``, ``Bytes`` or ``Object``.
    ``meta``: Notes about it; to add some, copy it with :meth:`with_meta`.
    ``creator``: The name of the node that sent it; the runner fills it in.
    ``version``: A number of the node's own choosing; -1: none.
    ``timers``: Seconds by name, see :meth:`timeit`.
    ``origin``: The id of the source's message that it comes from; the runner fills it in.
    ``sequence``: The number of that message, from 0; the runner fills it in.
    ``id``: Its unique name.
    ``created_at``: When it was made: Unix time in seconds.
    """

    payload: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    creator: str = ""
    version: int = -1
    timers: dict[str, float] = field(default_factory=dict)
    origin: str = ""
    sequence: int = -1
    id: str = field(default_factory=new_id)
    created_at: float = field(default_factory=time.time)

    def with_payload(self, payload: Any) -> Message:
        """Return a copy with another payload, the same meta, timers, origin and sequence, and an id of its own."""
        return self.with_changes(payload=payload)

    def with_meta(self, /, **meta: Any) -> Message:
        """Return a copy whose meta has these entries added or replaced."""
        return self.with_changes(meta={**self.meta, **meta})

    def with_changes(self, **changes: Any) -> Message:
        """Return a copy with any fields replaced; its id and time of birth are new unless given."""
        changes.setdefault("id", new_id())
        changes.setdefault("created_at", time.time())
        changes.setdefault("timers", dict(self.timers))
        return replace(self, **changes)

    @contextmanager
    def timeit(self, name: str) -> Iterator[Message]:
        """Time a block and note the seconds in ``timers[name]``: ``with message.timeit("decode"): ...``.

        Timers are the one thing a message learns after it was made; copies made later take them along.
        """
        start = time.perf_counter()
        try:
            yield self
        finally:
            self.timers[name] = time.perf_counter() - start

    def to_dict(self) -> dict[str, Any]:
        """Return the message as plain JSON values (arrays as nested lists, bytes as base64), with juturna's keys."""
        fields = {
            "id": self.id,
            "created_at": self.created_at,
            "creator": self.creator,
            "version": self.version,
            "origin": self.origin,
            "sequence": self.sequence,
            "payload": self.payload,
            "meta": self.meta,
            "timers": self.timers,
        }
        return {name: plain(value) for name, value in fields.items()}

    def to_json(self, indent: int | None = None) -> str:
        """Return :meth:`to_dict` as JSON text; NaN and the infinities, for which JSON has no word, become null."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)


def stamped(output: Message, creator: str, parent: Message | None, number: int | None = None) -> Message:
    """A copy of an output with its creator, and the origin and sequence of what it was made from, or its number."""
    source = parent if parent is not None and not output.origin else output
    return Message(
        payload=output.payload,
        meta=output.meta,
        creator=creator,
        version=output.version,
        timers=dict(output.timers),
        origin=source.origin or source.id,
        sequence=source.sequence if number is None else number,
        id=output.id,
        created_at=output.created_at,
    )


def plain(value: Any) -> Any:
    """Return a payload or any value in it as JSON values; a type JSON has no word for becomes its ``str``."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case int() if value.bit_length() > LONGEST_INT:
            return hex(value)
        case None | bool() | int() | str():
            return value
        case bytes() | bytearray() | memoryview():
            return _base64(bytes(value))
        case np.ndarray() | np.generic():
            return plain(value.tolist())
        case Batch():
            return [plain(message) for message in value.messages]
        case Message():
            return value.to_dict()
        case File():
            return {"name": value.name, "size": value.size, "digest": value.digest}
        case Audio() | Image() | Video() | Array() | Bytes():
            return {name: plain(getattr(value, name)) for name in value.__slots__}
        case Object() | dict() | Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
    return str(value)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
