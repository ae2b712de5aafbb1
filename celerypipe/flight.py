"""A message that is out with a carrier: its number, its bytes, where it is, since when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from celerypipe.blob import Blob
from celerypipe.connection import Command
from celerypipe.message import Message

#: Errands are numbered from here, so that they are nobody's turn.
ERRANDS = 1 << 62

#: Gets what came out of a node, or why nothing did.
Errand = Callable[[Sequence[Message], BaseException | None], None]


@dataclass(slots=True, eq=False)
class Flight:
    """A message on its way to a worker and back. Times are ``time.monotonic()``; ``entry`` is its id in the mailbox.

    ``data`` travels in the mailbox, ``blob`` is what lies apart, ``storing`` puts it there when it is sent. An
    ``errand`` gets the result instead of the nodes downstream.
    """

    sequence: int
    message: Message
    attempt: int = 0
    size: int = 0
    sent_at: float = 0.0
    due_since: float | None = None
    entry: bytes = b""
    data: bytes | None = None
    storing: Sequence[Command] = ()
    blob: Blob | None = None
    done: bool = False
    #: Its payload was lost and is being made again.
    remaking: bool = False
    errand: Errand | None = None
