"""Nodes that the suite warps; its workers import them by their files in ``benchmarks/worker_configs``."""

from __future__ import annotations

import time

import numpy as np

from celerypipe import Message, Proc


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


class Flip(Proc):
    """Sends an array back upside down: as many bytes as it got, and none of them can go by reference."""

    def update(self, message: Message) -> Message:
        """Copy it."""
        return message.with_payload(np.ascontiguousarray(message.payload[::-1]))
