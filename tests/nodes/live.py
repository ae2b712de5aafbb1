"""Nodes that take changes while they run, for real workers and for the runner's own process."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

from celerypipe import Message, Proc

#: What a worker of these nodes has in its configuration.
CONFIG = 'imports = ["tests.nodes.live", "tests.nodes.remote"]\n'


class Gain(Proc):
    """Multiplies; ``factor`` can be changed. ``diary``: a line for each warm-up, with the process."""

    def __init__(self, factor: float = 1.0, delay: float = 0.0, diary: str = "", deaf: float = 0.0) -> None:
        self.factor = factor
        self.delay = delay
        self.diary = diary
        self.deaf = deaf

    def warmup(self) -> None:
        """Note it."""
        if self.diary:
            with Path(self.diary).open("a") as diary:
                diary.write(f"{os.getpid()}\n")

    def set_on_config(self, prop: str, value: Any) -> None:
        """Change it."""
        if prop != "factor":
            raise ValueError(f"no property {prop!r}, only 'factor'")
        if not isinstance(value, int | float):
            raise TypeError(f"factor is a number, not {value!r}")
        self.factor = value

    def update(self, message: Message) -> Message:
        """Multiply."""
        time.sleep(self.delay)
        if self.deaf:
            ctypes.PyDLL(None).usleep(int(self.deaf * 1e6))
        return message.with_payload(message.payload * self.factor).with_meta(pid=os.getpid())


class Total(Proc):
    """Adds up what it gets, times a factor that can be changed."""

    stateful = True

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.total = 0.0

    def set_on_config(self, prop: str, value: Any) -> None:
        """Change it."""
        self.factor = value

    def snapshot(self) -> float:
        """The sum."""
        return self.total

    def restore(self, state: float) -> None:
        """The sum."""
        self.total = state

    def update(self, message: Message) -> Message:
        """Add."""
        self.total += message.payload * self.factor
        return message.with_payload(self.total)


class Fixed(Proc):
    """Takes no changes."""

    def update(self, message: Message) -> Message:
        """Hand on."""
        return message


class Mix(Proc):
    """Multiplies and adds, once ``gate`` is there; both can be changed."""

    def __init__(self, factor: float = 1.0, offset: float = 0.0, gate: str = "") -> None:
        self.factor = factor
        self.offset = offset
        self.gate = gate

    def set_on_config(self, prop: str, value: Any) -> None:
        """Change it; ``end`` ends the interpreter, as user code may."""
        if prop == "end":
            raise SystemExit(value)
        setattr(self, prop, value)

    def update(self, message: Message) -> Message:
        """Multiply and add."""
        if self.gate:
            Path(f"{self.gate}.at-work").touch()
            while not Path(self.gate).exists():
                time.sleep(0.01)
        return message.with_payload(message.payload * self.factor + self.offset)
