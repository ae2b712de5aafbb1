"""What a warped node wants of its parts: who may know a result, who moves messages, and who gets what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from celerypipe import codec
from celerypipe.message.message import Message
from celerypipe.runner.stations.station import Full
from celerypipe.runner.warp.flight import Done, Flight

#: The stand-in of a warped node, which this is for.
S = TypeVar("S", contravariant=True)


class Lookup(Protocol[S]):
    """Is asked before a message is sent: it may know what comes of it."""

    def take(self, warp: S, message: Message, full: Full, *, again: bool) -> bool | None:
        """Take a message, as a station does; None: nothing is asked for it. ``again``: it failed before."""

    def through(self, flight: Flight, done: Done) -> None:
        """A message is through: with its result, or given up."""

    def close(self) -> None:
        """The run is over."""


class Carrier(Protocol[S]):
    """Takes the messages of warped nodes away and brings their results back: through Redis, or nowhere."""

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

        Return where its time went, for the error's text, and the batch that was taken back with it, if it runs in one.
        """

    def settled(self, warp: S, flight: Flight) -> None:
        """Its result is here, or it was given up: nothing of it is needed any more."""

    def slots(self, warp: S) -> int:
        """How many messages its workers can run at the same time."""


class Recipient(Protocol[S]):
    """Gets what comes of the messages of warped nodes."""

    #: Does it take results as they came, and open them when somebody wants them?
    sealed: bool
    #: May who brings a message wait for Redis?
    may_wait: bool

    def deliver(self, warp: S, ready: Sequence[Done], *, wait: bool) -> int:
        """Take results and return how many; with ``wait`` all, else as long as nobody has to wait."""

    def delivered(self, warp: S) -> None:
        """What was taken last is counted: there is room for as many messages more."""

    def give_up(self, warp: S, message: Message, error: BaseException, attempt: int, note: str = "") -> None:
        """Nothing will come of a message; as :meth:`Station.give_up`."""

    def mends(self, warp: S, flight: Flight, message: Message) -> bool:
        """Is more lost of a message than what it has by itself? Then see to that, and let it be sent again."""
