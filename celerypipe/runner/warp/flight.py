"""A message that is out with a carrier: its number, its bytes, where it is, since when; and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from celerypipe.mailbox.blob.blob import Blob
from celerypipe.message.console import Console
from celerypipe.message.message import Message
from celerypipe.redis.connection import Command

#: Gets what came out of a node, or why nothing did.
Errand = Callable[[Sequence[Message], BaseException | None], None]


class Done(NamedTuple):
    """What one node made of a message: outputs, or an error; times in seconds; ``size`` in bytes, as it travelled.

    ``beyond``: seconds that the nodes after it ran; ``onward``: what the next node made of each output before the
    runner heard of it, or None for nothing yet; ``console``: what it printed, if that was asked for. ``by``: the
    activation that answered, empty where it ran here; ``known``: it was in the result cache, and nothing ran;
    ``warmed``: seconds that its node warmed up before it.
    """

    message: Message
    outputs: Sequence[Message] = ()
    ran: float = 0.0
    waited: float = 0.0
    size: int = 0
    onward: Sequence[Done | None] = ()
    beyond: float = 0.0
    error: BaseException | None = None
    console: Console | None = None
    by: str = ""
    known: bool = False
    warmed: float = 0.0

    @property
    def last(self) -> int:
        """How many nodes further on the one is that was reached last."""
        reached = [each for each in self.onward if each is not None]
        return 1 + reached[-1].last if reached else 0


@dataclass(frozen=True, slots=True)
class Note:
    """What holds for a message if no answer comes: its node is through, and another one further on is at work.

    ``allowed``: seconds that one may take.
    """

    done: Done
    allowed: float | None


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
    #: It is run by itself, and in no batch: it failed before, or one that did had it in it.
    alone: bool = False
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
    note: Note | None = None
    #: How often its payload, or that of its result, was not what had been signed.
    altered: int = 0
    #: It was taken back, and nobody had been given it.
    unserved: bool = False
    #: It waited for a slot that was being freed: its time begins when somebody is given it.
    held_up: bool = False
    #: What was printed for it before its time was over, if that was asked for and is known here.
    console: Console | None = None
    #: The activation that answered; empty where it ran here.
    by: str = ""
    #: The activation that it was taken over from, since its process ended.
    holder: str = ""
    #: It shows whether its queue answers again, while the others are given up.
    probe: bool = False
