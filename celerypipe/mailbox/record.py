"""What an activation is told about a warped node: written by the runner, read by the worker."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields
from typing import Any

import msgspec

from celerypipe import codec
from celerypipe.codec.identity import identity
from celerypipe.errors import CodecError
from celerypipe.mailbox import protocol
from celerypipe.mailbox.protocol import protocol_of

#: The level of a run that wants to hear nothing, of what is printed neither.
SILENT = 1_000


@dataclass(frozen=True, slots=True)
class Record:
    """What a runner wrote about a warped node: limits in seconds, ``room`` in replies.

    ``configuration``: None for a function that is called, whose arguments come with its messages; ``neighbours``: the
    nodes of the run on the same queue, itself too, upstream ones first; ``onward``: the one of them that gets all that
    comes out of it, and from nobody else; ``batch``: so many messages at once, ``wait`` seconds for them to come;
    ``pinned``: a stateful node stays in one process; ``console``: what it prints goes to the runner; ``shared``: large
    results go into shared memory; ``compression``: how those are packed that do not; ``level`` and
    ``secrets``: which records of its log go to the runner, and what is hidden in them; ``digest``: that of the
    configuration, made where the record is, since a worker asks for it with every activation.
    """

    mark: str
    configuration: dict[str, Any] | None
    timeout: float | None
    linger: float
    slice: float
    term: float
    room: int
    budget: int
    parallel: int | None = None
    neighbours: tuple[str, ...] = ()
    onward: str = ""
    compression: str = "none"
    batch: int = 1
    wait: float = 0.0
    pinned: bool = False
    console: bool = False
    shared: bool = False
    level: int = logging.WARNING
    secrets: tuple[str, ...] = field(default=(), repr=False)
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", identity(self.configuration))

    def write(self) -> bytes:
        """Encode it."""
        said = {each.name: getattr(self, each.name) for each in fields(self)}
        return codec.encode_value({"protocol": list(protocol.SPOKEN), **said})

    @classmethod
    def read(cls, data: bytes) -> Record:
        """Decode it; :class:`CodecError` when it is of another version, or was written by nobody who knows how."""
        values = codec.decode_value(data)
        spoken = protocol_of(values.pop("protocol", None)) if type(values) is dict else None
        if spoken is None or not protocol.SPOKEN.understands(spoken):
            raise CodecError(f"no record of a node in {protocol.SPOKEN}: {spoken or 'it names none'}")
        configuration = values.get("configuration", ()) if type(values) is dict else ()
        named = type(configuration) is dict and all(type(name) is str for name in configuration)
        if configuration is not None and not named:
            raise CodecError("no record of a node: it has no configuration")
        try:
            # Only looked at: what the codec brought is more exact than what comes out of this.
            msgspec.convert({**values, "configuration": {}}, cls)
            return cls(**values)
        except (TypeError, msgspec.ValidationError) as error:
            raise CodecError(f"no record of a node: {error}") from None

    @property
    def key(self) -> str:
        """What an instance is known by on the shelf; one that is pinned began with its run, and serves no other."""
        return f"{self.mark} {self.digest}{' pinned' if self.pinned else ''}"
