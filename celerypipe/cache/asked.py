"""What the cache is asked. A stand-in until the real one comes with branch c-asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
from blake3 import blake3

from celerypipe.errors import CodecError


@dataclass(frozen=True, slots=True)
class Asked:
    """One question to the cache, in parts that can be told apart."""

    mark: str
    code: str
    configuration: Mapping[str, str]
    input: str
    meta: Mapping[str, str] = field(default_factory=dict)
    exact: str = ""

    @property
    def fingerprint(self) -> str:
        """``blake3-<64 hex>``, over all of it."""
        parts = (1, 1, self.mark, self.code, self.exact, self.input, sorted(self.meta.items()))
        return f"blake3-{blake3(msgspec.msgpack.encode(parts)).hexdigest()}"

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
