"""What the cache is asked: which node, which code, which configuration, which input; and its fingerprint.

A fingerprint is exact by type: ``1`` and ``1.0``, ``(1,)`` and ``[1]``, float32 and float64 ask for different things.
It is the same in every process and on every machine. Everything but the message is digested once a node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any

import msgspec
import numpy as np
from blake3 import blake3

from celerypipe.codec import CODEC_VERSION
from celerypipe.codec.digest import digest
from celerypipe.errors import CodecError
from celerypipe.message import Message

#: Named in each fingerprint, and in each value that is shown by its digest.
ALGORITHM = "blake3"
#: Goes into each fingerprint; a change to what it is made of is another number.
FORMAT = 1
#: Values whose text is longer are shown by their digest.
SHORT = 60
#: The digest of a default that has none.
UNTOLD = "default"
#: Keeps digests of what is known by its name apart from those of values.
BY_NAME = "celerypipe: a value by its name"

_pack = msgspec.msgpack.Encoder().encode
_ATOMS = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to the cache, in parts that can be told apart.

    ``mark``
        which node
    ``code``
        ``version 1`` (declared), ``source <hex>`` or ``celerypipe <version>``
    ``configuration``
        argument → its value as short text, or ``blake3:<hex>`` of one that is long or could be a secret; defaults are
        filled in. For people: it decides nothing
    ``input``
        digest of the payload
    ``meta``
        declared key of the message's meta → digest of its value; a key that the message lacks is not there
    ``exact``
        digest of the configuration: what ``configuration`` shows, exactly
    """

    mark: str
    code: str
    configuration: Mapping[str, str]
    input: str
    meta: Mapping[str, str] = field(default_factory=dict)
    exact: str = ""

    @property
    def fingerprint(self) -> str:
        """``blake3-<64 hex>``, over all of it."""
        meta = sorted(self.meta.items())
        parts = (FORMAT, CODEC_VERSION, self.mark, self.code, self.exact, self.input, meta)
        return f"{ALGORITHM}-{blake3(_pack(parts)).hexdigest()}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for the entry and for ``explain``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Asked:
        """Return what :meth:`to_dict` wrote; :class:`CodecError` for anything else."""
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise CodecError(f"this is no question to the cache: {error}") from None


@dataclass(frozen=True, slots=True)
class Told:
    """A value of the configuration of which only text and digest are known: a default that a worker told."""

    digest: str
    text: str


class Asker:
    """Asks for one node, message by message.

    ``configuration``: all of its arguments, defaults filled in. ``secret``: the arguments whose values are not to be
    seen. ``meta``: the keys of a message's meta that count. :class:`~celerypipe.errors.CodecError` names an argument
    that has no digest.
    """

    __slots__ = ("_code", "_configuration", "_exact", "_mark", "_meta")

    def __init__(
        self,
        mark: str,
        code: str,
        configuration: Mapping[str, Any],
        *,
        secret: Collection[str] = (),
        meta: tuple[str, ...] = (),
    ) -> None:
        told = {name: told_of(value, f"the argument {name!r}") for name, value in sorted(configuration.items())}
        self._mark = mark
        self._code = code
        self._meta = tuple(sorted(set(meta)))
        self._exact = blake3(_pack([(name, value.digest) for name, value in told.items()])).hexdigest()
        self._configuration = {
            name: f"{ALGORITHM}:{value.digest}" if name in secret else value.text for name, value in told.items()
        }

    def asks(self, asked: Asked) -> bool:
        """Is that a question of this node, code and configuration, and of no other notes than it looks at?"""
        own = (self._mark, self._code, self._exact)
        return own == (asked.mark, asked.code, asked.exact) and set(asked.meta) <= set(self._meta)

    def __call__(self, message: Message) -> Asked:
        """Return what a message asks; :class:`~celerypipe.errors.CodecError` for a payload that cannot travel."""
        content = digest(message.payload, "payload", self._meta)
        meta = {key: digest(message.meta[key], f"meta[{key!r}]") for key in self._meta if key in message.meta}
        return Asked(self._mark, self._code, self._configuration, content, meta, self._exact)


def told_of(value: Any, place: str = "value") -> Told:
    """Return a value's digest, and a text of it that is short; :class:`CodecError` if it has no digest.

    Besides what can travel, paths and members of an Enum have one: they are what they are called.
    """
    match value:
        case Told():
            return value
        case PurePath():
            return _by_name("path", str(value))
        case Enum():
            return _by_name("member", f"{type(value).__module__}.{type(value).__qualname__}.{value.name}")
    exact = digest(value, place)
    return Told(exact, _text(value) or f"{ALGORITHM}:{exact}")


def _by_name(kind: str, name: str) -> Told:
    exact = blake3(_pack((kind, name)), derive_key_context=BY_NAME).hexdigest()
    return Told(exact, f"{kind} {name}" if len(name) <= SHORT else f"{ALGORITHM}:{exact}")


def _text(value: Any) -> str:
    """The value as it is written in Python; nothing if that is long, or says less than the value is."""
    if not _is_shown(value):
        return ""
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
