"""What a warped node wants of whoever moves its messages: a carrier through Redis, or one that goes nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from celerypipe import codec
from celerypipe.message.message import Message
from celerypipe.runner.warp.flight import Flight

#: The stand-in of a warped node, which this is for.
S = TypeVar("S", contravariant=True)


class Carrier(Protocol[S]):
    """Takes the messages of warped nodes away and brings their results back."""

    #: Can it send on a payload that was not fetched?
    by_reference: bool

    def load(self, warp: S, flight: Flight, message: codec.Apart) -> None:
        """Give a flight its bytes; they have been copied afterwards."""

    def here(self, message: Message) -> Message | None:
        """Return a message with its payload, wherever that is; None if it is lost."""

    def room(self, size: int) -> bool:
        """May so many bytes more be in flight?"""

    def post(self, warp: S, flight: Flight, *, wait: bool = True) -> None:
        """Take a message. ``wait``: the calling thread may wait for an answer of Redis."""

    def began(self, warp: S, flight: Flight) -> float:
        """When its own time began, as far as known: what it waited behind others of this node does not count."""

    def withdraw(self, warp: S, flight: Flight) -> tuple[str, Sequence[Flight]] | None:
        """Take it back, so that nobody starts it. None: its result is on its way, and counts.

        Return where its time went, for the error's text, and who is late with it: they run as one batch.
        """

    def settled(self, warp: S, flight: Flight) -> None:
        """Its result is here, or it was given up: nothing of it is needed any more."""

    def slots(self, warp: S) -> int:
        """How many messages its workers can run at the same time."""
