"""Nodes of a soak, which do on some messages what is hard on a worker (``imports = ["tests.nodes.soaking"]``)."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from celerypipe import Message, Proc, Sink, Source
from tests.nodes.faulty import be_deaf, hold

#: Seconds that a node holds the interpreter lock: longer than a heartbeat lasts, and than silence may.
HOLD = 6.5
#: Seconds for which a node hears no interrupt, or sleeps: longer than its timeout.
LATE = 8.0
#: Whose code this is: another's does something else under the same name.
WHOSE = os.environ.get("CELERYPIPE_SOAK", "")
FORK = multiprocessing.get_context("fork")


class Soaked(Proc):
    """Adds its name to a payload, a tuple of a number, an array and names; sends it 0, 1 or 2 times by the number.

    Raises on multiples of ``bad``, and writes into the array on those of ``writes``, unless that is 0. Takes ``delay``
    seconds. The others say on which numbers it holds the interpreter lock, sleeps for too long, hears no interrupt, or
    starts processes, one of which it leaves behind; in the process ``home`` it raises at once what becomes of that.
    """

    def __init__(
        self,
        name: str,
        modulus: int,
        bad: int = 0,
        writes: int = 0,
        delay: float = 0.0,
        home: int = 0,
        holds: Collection[int] = (),
        sleeps: Collection[int] = (),
        deaf: Collection[int] = (),
        starts: Collection[int] = (),
    ) -> None:
        self.mark_name = name
        self.modulus = modulus
        self.bad = bad
        self.writes = writes
        self.delay = delay
        self.home = home
        self.holds, self.sleeps, self.deaf, self.starts = holds, sleeps, deaf, starts

    def update(self, message: Message) -> list[Message]:
        number, array = message.payload[:2]
        time.sleep(self.delay)
        if self.bad and number % self.bad == 0:
            raise ValueError(number)
        if self.writes and number % self.writes == 0:
            array += 1
        self._be_hard(number)
        copies = (number % self.modulus) if self.modulus else 1
        mine = [f"{self.mark_name}{copy}{WHOSE}" for copy in range(min(copies, 2))]
        return [message.with_payload((number, array, *message.payload[2:], one)) for one in mine]

    def _be_hard(self, number: int) -> None:
        if os.getpid() == self.home:
            if number in self.sleeps or number in self.deaf:
                raise TimeoutError(number)
            return
        if number in self.holds:
            hold(HOLD)
        if number in self.sleeps:
            time.sleep(LATE)
        if number in self.deaf:
            be_deaf(LATE)
        if number in self.starts:
            child = FORK.Process(target=os.getpid)
            child.start()
            child.join()
            subprocess.Popen(["sleep", "600"])


class SoakedCopy(Soaked):
    """The same, with an array of its own to write into."""

    writable = True


class Numbers(Source):
    """Sends numbers for ever, with an array each, a few in a second."""

    def messages(self) -> Iterator[Message]:
        number = 0
        while not threading.Event().wait(0.1):
            yield Message((number, np.zeros(4, np.uint8)))
            number += 1


class Names(Sink):
    """Appends the names in its payload to a file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def update(self, message: Message) -> None:
        with self.path.open("a") as file:
            file.write(f"{' '.join(message.payload[2:])}\n")
