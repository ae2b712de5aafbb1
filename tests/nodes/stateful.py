"""Stateful nodes that the tests run on real workers (``imports = ["tests.nodes.stateful"]``)."""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from celerypipe import Message, Proc

#: What a worker of these nodes and of plain ones has in its configuration.
CONFIG = 'imports = ["tests.nodes.stateful", "tests.nodes.remote"]\n'


class RunningSum(Proc):
    """Adds up its payloads, and sends each sum with the process that made it.

    ``delay``: seconds a message takes. Messages in ``bad`` raise after they were added, the first ``times`` times;
    those in ``slow`` take ``nap`` seconds then. ``salt``: another one is another instance.
    """

    stateful = True

    def __init__(
        self,
        delay: float = 0.0,
        bad: list[int] | None = None,
        times: int = 1_000_000,
        slow: list[int] | None = None,
        diary: str = "",
        salt: int = 0,
        nap: float = 60.0,
    ) -> None:
        self.nap = nap
        self.delay = delay
        self.bad = bad or []
        self.slow = slow or []
        self.times = times
        self.diary = diary
        self.sum = 0

    def update(self, message: Message) -> Message:
        number = message.payload
        self.sum += number
        time.sleep(self.delay)
        if number in self.bad and message.meta.get("seen", self._seen(number)) <= self.times:
            raise ValueError(f"{number} is not to my taste")
        if number in self.slow:
            time.sleep(self.nap)
        return message.with_payload(self.sum).with_meta(pid=os.getpid())

    def _seen(self, number: int) -> int:
        if not self.diary:
            return 0
        with open(self.diary, "a") as file:
            file.write(f"{number}\n")
        return Path(self.diary).read_text().split().count(str(number))

    def snapshot(self) -> Any:
        return self.sum

    def restore(self, state: Any) -> None:
        self.sum = state


def sums(numbers: Any) -> list[int]:
    """What it sends for these numbers."""
    return list(accumulate(numbers))


class Window(Proc):
    """Joins the last ``size`` messages, of two kinds, and sends those of a window when it is full: 0 or 1 outputs."""

    stateful = True

    def __init__(self, size: int = 7, delay: float = 0.0) -> None:
        self.size = size
        self.delay = delay
        self.left: deque[int] = deque()
        self.right: deque[Any] = deque()

    def update(self, message: Message) -> Message | None:
        time.sleep(self.delay)
        (self.right if message.payload % 3 else self.left).append(message.payload)
        if len(self.left) + len(self.right) < self.size:
            return None
        joined = (tuple(self.left), tuple(self.right))
        self.left.clear()
        self.right.popleft()
        return message.with_payload(joined).with_meta(pid=os.getpid())

    def snapshot(self) -> Any:
        return {"left": list(self.left), "right": list(self.right)}

    def restore(self, state: Any) -> None:
        self.left, self.right = deque(state["left"]), deque(state["right"])


class Picture(Proc):
    """Adds up arrays: its state is as large as they are."""

    stateful = True

    def __init__(self) -> None:
        self.sum: Any = None

    def update(self, message: Message) -> Message:
        self.sum = message.payload.copy() if self.sum is None else self.sum + message.payload
        return message.with_payload(int(self.sum.sum())).with_meta(pid=os.getpid())

    def snapshot(self) -> Any:
        return self.sum

    def restore(self, state: Any) -> None:
        self.sum = None if state is None else np.array(state)


class Forgetful(Proc):
    """Is stateful and says nothing of its state."""

    stateful = True

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.sum = 0

    def update(self, message: Message) -> Message:
        time.sleep(self.delay)
        self.sum += message.payload
        return message.with_payload(self.sum).with_meta(pid=os.getpid())


class Awkward(RunningSum):
    """Goes wrong where its configuration says: a ``snapshot`` or ``restore`` that raises, hangs, or cannot travel."""

    def __init__(self, wrong: str, delay: float = 0.0) -> None:
        super().__init__(delay)
        self.wrong = wrong
        self.calls = 0

    def snapshot(self) -> Any:
        self.calls += 1
        if self.wrong == "hang" and self.calls > 1:
            time.sleep(60.0)
        if self.wrong == "snapshot" and self.calls > 1:
            raise RuntimeError("the disk is full")
        return object() if self.wrong == "travel" else self.sum

    def restore(self, state: Any) -> None:
        if self.wrong == "restore":
            raise RuntimeError("I know nothing of that")
        super().restore(state)


class Moody(RunningSum):
    """Fails when a message is given to it again, by what is in the ``diary``."""

    def __init__(self, diary: str, delay: float = 0.0) -> None:
        super().__init__(delay, diary=diary)

    def update(self, message: Message) -> Message:
        if self._seen(message.payload) > 1:
            raise ValueError("not again")
        return super().update(message)


class Fatal(RunningSum):
    """Kills its process on the numbers in ``bad``."""

    def update(self, message: Message) -> Message:
        if message.payload in self.bad:
            ctypes.string_at(0)
        return super().update(message)


class Enlarge(Proc):
    """Turns a number into an array of 80,000 bytes full of it."""

    def update(self, message: Message) -> Message:
        time.sleep(0.002)
        return message.with_payload(np.full(20_000, message.payload, np.uint32))
