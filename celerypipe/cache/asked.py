"""What the cache is asked: which node, which code, which configuration, which input; and its fingerprint.

A fingerprint is exact by type: ``1`` and ``1.0``, ``(1,)`` and ``[1]``, float32 and float64 ask for different things.
It is the same in every process and on every machine. Everything but the message is digested once a node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
from blake3 import blake3

from celerypipe.catalogue.told import ALGORITHM, pack, told_of
from celerypipe.codec import CODEC_VERSION
from celerypipe.codec.digest import digest
from celerypipe.errors import CodecError
from celerypipe.message.message import Message

#: Goes into each fingerprint; a change to what it is made of is another number.
FORMAT = 2


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
        return f"{ALGORITHM}-{blake3(pack(parts)).hexdigest()}"

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
        self._exact = blake3(pack([(name, value.digest) for name, value in told.items()])).hexdigest()
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
