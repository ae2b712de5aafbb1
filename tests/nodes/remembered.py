"""Nodes whose results the tests have remembered, here and on workers (``imports = ["tests.nodes.remembered"]``).

Each notes in ``diary`` what it was asked to compute, so that a test sees what was computed, and how often.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from celerypipe import Message, Proc, node

#: What a worker of these nodes has in its configuration.
CONFIG = 'imports = ["tests.nodes.remembered"]\n'


class Computing(Proc):
    """Notes the payload; takes ``delay`` seconds, and longer as long as the file ``gate`` is not there."""

    def __init__(self, diary: str, delay: float = 0.0, gate: str = "") -> None:
        self.diary = diary
        self.delay = delay
        self.gate = gate

    def update(self, message: Message) -> Any:
        """Compute."""
        with open(self.diary, "a") as file:
            file.write(f"{shown(message.payload)}\n")
        time.sleep(self.delay)
        while self.gate and not Path(self.gate).exists():
            time.sleep(0.005)
        return self.result(message)

    def result(self, message: Message) -> Any:
        """What comes out."""
        return message.with_payload(message.payload**2).with_meta(squared=True)


class Square(Computing):
    """The square of a number, and a note that it is one."""


class Declared(Computing):
    """The same, of a declared version."""

    version = "1"


class Several(Computing):
    """Sends a number n as n outputs, of which the first has no meta."""

    def result(self, message: Message) -> Iterator[Message]:
        """None for 0."""
        for copy in range(message.payload):
            yield Message((message.payload, copy), meta={**message.meta, "copy": copy} if copy else {})


class Picky(Computing):
    """Fails on odd numbers."""

    def result(self, message: Message) -> Message:
        """Raise, or send it on."""
        if message.payload % 2:
            raise ValueError(f"{message.payload} is odd")
        return message


class Weighted(Computing):
    """Sends its own name and the sum of what it was made with."""

    def __init__(self, diary: str, weights: Any) -> None:
        super().__init__(diary)
        self.weights = weights

    def result(self, message: Message) -> Message:
        """The input is not looked at."""
        return message.with_payload((self.name, float(np.sum(self.weights))))


class Scribbler(Computing):
    """Writes into the notes of its input, as no node should."""

    def result(self, message: Message) -> Message:
        """Send the input itself on."""
        message.meta["squared"] = message.payload**2  # type: ignore[index]
        return message


class Frames(Computing):
    """Makes a large array out of a number."""

    def result(self, message: Message) -> Message:
        """Two hundred thousand bytes."""
        return message.with_payload(np.full(200_000, message.payload % 256, np.uint8))


class Pid(Computing):
    """Says which process it runs in."""

    def result(self, message: Message) -> Message:
        """In the payload."""
        return message.with_payload(os.getpid())


class Together(Proc):
    """Takes several at once, and says with how many it was computed."""

    def __init__(self, diary: str) -> None:
        self.diary = diary

    def update_batch(self, messages: list[Message]) -> list[Message]:
        """Double them."""
        with open(self.diary, "a") as file:
            file.writelines(f"{message.payload}\n" for message in messages)
        return [message.with_payload(message.payload * 2) for message in messages]


class Count(Computing):
    """Says how many messages it got together."""

    def result(self, message: Message) -> Message:
        """A number."""
        return message.with_payload(len(message.payload.messages))


class Sum(Computing):
    """Adds an array up."""

    def result(self, message: Message) -> Message:
        """A number."""
        return message.with_payload(int(np.sum(message.payload, dtype=np.int64)))


def shown(payload: Any) -> Any:
    """A payload in one line."""
    return f"array {payload.shape} {payload.flat[0]}" if isinstance(payload, np.ndarray) else str(payload)[:80]


@node(queue="remembered", cache=True)
def picky(number: int, diary: str) -> int:
    """Fail on each fourth number."""
    return _picky(number, diary)


@node(queue="remembered", cache={"failures": True})
def grim(number: int, diary: str) -> int:
    """The same, and its failures are kept."""
    return _picky(number, diary)


def _picky(number: int, diary: str) -> int:
    with open(diary, "a") as file:
        file.write(f"{number}\n")
    if number % 4 == 0:
        raise ValueError(f"{number} is one of four")
    return number


@node(queue="remembered", cache=True)
def made(what: str, diary: str) -> Any:
    """Values of several types."""
    with open(diary, "a") as file:
        file.write(f"{what}\n")
    return {"ones": np.ones((2, 3, 4)), "sum": 1 + 2, "tuple": (1, 2, 3), "none": None}[what]
