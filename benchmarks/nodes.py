"""Nodes that the suite warps; its workers import them by their files in ``benchmarks/worker_configs``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celerypipe import Array, Image, Message, Proc

#: Rows and columns of the matrix that :class:`Multiply` multiplies with.
SIZE = 3072


class Work(Proc):
    """Keeps a core busy for a while, then sends the message on. ``seconds``: how long."""

    def __init__(self, seconds: float = 0.005) -> None:
        self.seconds = seconds

    def update(self, message: Message) -> Message:
        """Count up until the time is over."""
        over = time.perf_counter() + self.seconds
        while time.perf_counter() < over:
            pass
        return message


class Wait(Proc):
    """Waits for a while, as for a GPU or a service, then sends the message on. ``seconds``: how long."""

    def __init__(self, seconds: float = 0.005) -> None:
        self.seconds = seconds

    def update(self, message: Message) -> Message:
        """Sleep."""
        time.sleep(self.seconds)
        return message


class Copy(Proc):
    """Sends on a copy of what it receives: a payload of its own, as a node makes one that works on it."""

    def update(self, message: Message) -> Message:
        """Copy the array."""
        payload: Any = message.payload
        match payload:
            case Image():
                return message.with_payload(replace(payload, image=payload.image.copy()))
            case Array():
                return message.with_payload(replace(payload, array=payload.array.copy()))
        return message.with_payload(payload.copy())


class Multiply(Proc):
    """Multiplies a row of floats with a matrix: what many small models do, and what one call does better for many."""

    def __init__(self) -> None:
        self.matrix = matrix()

    def update(self, message: Message) -> Message:
        """One row: the whole matrix is read for it."""
        return message.with_payload(message.payload @ self.matrix)

    def update_batch(self, messages: Sequence[Message]) -> list[Message]:
        """All rows in one product."""
        rows = np.stack([message.payload for message in messages]) @ self.matrix
        return [message.with_payload(row) for message, row in zip(messages, rows, strict=True)]


def matrix() -> NDArray[np.float32]:
    """Small whole numbers: their products are exact, so that every order of adding gives the same."""
    return np.random.default_rng(1).integers(-4, 5, (SIZE, SIZE)).astype(np.float32)
