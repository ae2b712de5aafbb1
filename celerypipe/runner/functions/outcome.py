"""What a call came to: a value, or the bytes of it until somebody asks for that; and how to make it again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celerypipe.codec import Content
from celerypipe.errors import CodecError, NodeFailed
from celerypipe.mailbox.blob.inputs import ArgumentPlace, Input, as_payload, placed, value_of
from celerypipe.message.message import Message
from celerypipe.message.ownership import own
from celerypipe.runner.carrier.cargo import Sealed

#: So many calls in a row are made again for one result that is lost. Each keeps the arguments of those before it.
MOST_AGAIN = 32


@dataclass(frozen=True, slots=True)
class Piece:
    """An input of a call that may have to be made again: its bytes, or where they were and how to make them."""

    data: bytes
    blob: str = ""
    making: Making | None = None


@dataclass(frozen=True, slots=True)
class Making:
    """How a result was made: by which warp, of which arguments and inputs. It keeps no blob alive."""

    warp: Any
    arguments: tuple[Any, Any]
    inputs: tuple[tuple[ArgumentPlace, Piece], ...]
    depth: int


class Outcome:
    """What a call came to. ``found``: its value, or its bytes as they came, which are ``sealed`` from then on.

    ``making``: how to make those that lie apart again; ``known``: it was in the result cache.
    """

    __slots__ = (
        "__weakref__",
        "_content",
        "_fetch",
        "_given",
        "_lock",
        "_opened",
        "_value",
        "known",
        "making",
        "name",
        "sealed",
    )

    def __init__(
        self, name: str, found: Any, making: Making | None, fetch: Callable[[Outcome], Content], *, known: bool
    ) -> None:
        self.name = name
        self.known = known
        self.sealed: Sealed | None = found if isinstance(found, Sealed) else None
        self.making = making
        self._fetch = fetch
        self._content: Content | None = None
        self._opened = self.sealed is None
        self._value: Any = found if self._opened else None
        #: Of a value that may be an argument of other calls, what its user gets, who may change lists and dicts in it.
        self._given: Any = own(found) if self._opened else None
        self._lock = threading.Lock()

    @property
    def is_apart(self) -> bool:
        """Do its bytes lie where they go away with its session?"""
        return self.sealed is not None and self.sealed.blob is not None and not self._opened and self._content is None

    def value(self) -> Any:
        """Return the value; the first time its bytes are fetched and read."""
        with self._lock:
            if not self._opened and self.sealed is not None:
                content = self._brought()
                try:
                    self._value = value_of(self.sealed.data, content)
                except CodecError as error:
                    raise NodeFailed(f"{self.name}: its result cannot be read: {error}", node=self.name) from error
                self._opened, self._content = True, None
            return self._value

    def given(self) -> Any:
        """Return the value as its user gets it."""
        value = self.value()
        return value if self.sealed is not None else self._given

    def bring(self) -> None:
        """Fetch the bytes, while they can be had."""
        with self._lock:
            if not self._opened:
                self._content = self._brought()

    def _brought(self) -> Content | None:
        if self._content is not None or self.sealed is None or self.sealed.blob is None:
            return self._content
        content = self._fetch(self)  # which may make it again, and seal that
        self.sealed.blob.mapped(content)
        return content

    @property
    def piece(self) -> Piece:
        """What is kept of it for calls that it is an input of; of a value nothing, it is among their arguments."""
        sealed = self.sealed or Sealed(b"")
        return Piece(sealed.data, sealed.blob.reference if sealed.blob is not None else "", self.making)


def payload(
    arguments: tuple[Any, Any], inputs: tuple[tuple[ArgumentPlace, Outcome], ...], *, opened: bool = False
) -> tuple[Any, ...]:
    """Return a call as it travels, with the outcomes that are its inputs: values in their places, the rest as bytes.

    ``opened``: as values, all of them.
    """
    here = [(place, each.value()) for place, each in inputs if opened or each.sealed is None]
    away = [
        Input(place, each.piece.data, each.piece.blob)
        for place, each in inputs
        if not opened and each.sealed is not None
    ]
    return as_payload(placed(arguments, here) if here else arguments, away)


def making_of(
    warp: Any, arguments: tuple[Any, Any], inputs: tuple[tuple[ArgumentPlace, Outcome], ...]
) -> Making | None:
    """Return how a call makes its result; None if that began too many calls ago."""
    here = [(place, outcome.value()) for place, outcome in inputs if outcome.sealed is None]
    pieces = tuple((place, outcome.piece) for place, outcome in inputs if outcome.sealed is not None)
    depth = 1 + max((piece.making.depth for _, piece in pieces if piece.making is not None), default=0)
    if depth > MOST_AGAIN:
        return None
    return Making(warp, placed(arguments, here) if here else arguments, pieces, depth)


def message_of(making: Making, pieces: list[Sealed]) -> Message:
    """Return the message that makes a result again, of inputs that are there."""
    inputs = [
        Input(place, sealed.data, sealed.blob.reference if sealed.blob is not None else "")
        for (place, _), sealed in zip(making.inputs, pieces, strict=True)
    ]
    return Message(as_payload(making.arguments, inputs))
