"""Nodes that the tests run on real workers (``imports = ["tests.nodes.remote"]``)."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from celerypipe import Message, Object, Proc, Sink, Source, node
from tests.nodes.faulty import hold

#: What a worker of these nodes has in its configuration.
CONFIG = 'imports = ["tests.nodes.remote"]\n'


class Echo(Proc):
    """Sends what it receives, after ``delay`` seconds, with the process that did it in the meta field ``pid``."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    def update(self, message: Message) -> Message:
        if self.delay:
            time.sleep(self.delay)
        return message.with_meta(pid=os.getpid())


class Repeat(Proc):
    """Sends its payload, a number n, n times: 0 outputs swallow the message."""

    def update(self, message: Message) -> Iterator[Message]:
        for copy in range(message.payload):
            yield message.with_payload((message.payload, copy))


class Nap(Proc):
    """Sleeps as many seconds as the payload says, and notes that it began in ``diary`` if there is one."""

    def __init__(self, diary: str = "") -> None:
        self.diary = diary

    def update(self, message: Message) -> Message:
        if self.diary:
            with open(self.diary, "a") as file:
                file.write(f"{message.payload}\n")
        time.sleep(message.payload)
        return message


class Heavy(Proc):
    """As Nap, but ``load`` seconds to warm up, and ``until`` a file is there, and ``leave`` seconds to let go."""

    def __init__(self, load: float = 0.0, leave: float = 0.0, until: str = "/") -> None:
        self.load = load
        self.leave = leave
        self.until = until

    def warmup(self) -> None:
        """Take long."""
        time.sleep(self.load)
        while not os.path.exists(self.until):
            time.sleep(0.01)

    def update(self, message: Message) -> Message:
        """Sleep."""
        time.sleep(message.payload)
        return message

    def destroy(self) -> None:
        """Take long."""
        time.sleep(self.leave)


class Gate(Proc):
    """Lets numbers pass at once; a path only when a file is there."""

    def update(self, message: Message) -> Message:
        """Send it on."""
        while isinstance(message.payload, str) and not Path(message.payload).exists():
            time.sleep(0.01)
        return message


class Picky(Proc):
    """Raises on the payloads in ``bad``; with ``times``, only so often each. Another ``salt`` is another instance."""

    def __init__(self, bad: list[Any], times: int | None = None, salt: int = 0) -> None:
        self.bad = bad
        self.times = times
        self.seen: dict[Any, int] = {}

    def update(self, message: Message) -> Message:
        if message.payload in self.bad:
            self.logger.warning("about to refuse %r", message.payload)
            self.seen[message.payload] = self.seen.get(message.payload, 0) + 1
            if self.times is None or self.seen[message.payload] <= self.times:
                raise ValueError(f"{message.payload!r} is not to my taste")
        return message


class Deadly(Proc):
    """Kills its own process on the payloads in ``bad``."""

    def __init__(self, bad: list[Any]) -> None:
        self.bad = bad

    def update(self, message: Message) -> Message:
        if message.payload in self.bad:
            os.kill(os.getpid(), signal.SIGKILL)
        return message


class Odd(Proc):
    """Returns what no proc may return: a ``number``, a ``list`` or ``generator`` of one, an ``unknown`` payload."""

    def __init__(self, what: str) -> None:
        self.what = what

    def update(self, message: Message) -> Any:
        if self.what == "unknown":
            return message.with_payload(Object(inner=[object()]))
        outputs = [message, 3]
        return {"list": outputs, "generator": iter(outputs)}.get(self.what, 7)


class Broken(Proc):
    """Cannot warm up."""

    def warmup(self) -> None:
        raise RuntimeError("the model file is not there")

    def update(self, message: Message) -> Message:
        return message


class Large(Proc):
    """Doubles an array."""

    def update(self, message: Message) -> Message:
        return message.with_payload(np.asarray(message.payload) * 2)


class Grow(Proc):
    """Makes an array of as many bytes as the payload says."""

    def update(self, message: Message) -> Message:
        return message.with_payload(np.zeros(message.payload, np.uint8))


class GrowTogether(Proc):
    """As Grow, for several messages at once."""

    def update_batch(self, messages: list[Message]) -> list[Message]:
        return [message.with_payload(np.zeros(message.payload, np.uint8)) for message in messages]


class Frames(Source):
    """Sends ``count`` arrays of ``size`` bytes, each full of its number."""

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size

    def messages(self) -> Iterator[Message]:
        for number in range(self.count):
            yield Message(np.full(self.size, number % 256, np.uint8))


class Cut(Proc):
    """Cuts an array into a hundred parts."""

    def update(self, message: Message) -> Iterator[Message]:
        for part in np.split(np.array(message.payload), 100):
            yield message.with_payload(part)


class Hoard(Proc):
    """Keeps the first array it sees as it came, and notes with each message what is in it by now."""

    def __init__(self) -> None:
        self.first: Any = None

    def update(self, message: Message) -> Message:
        if self.first is None:
            self.first = message.payload
        return message.with_payload((int(self.first.min()), int(self.first.max()), int(message.payload[0])))


class Mark(Proc):
    """Adds its name to a payload that is a tuple with a number in front; sends it 0, 1 or 2 times by that number.

    Raises on multiples of ``bad``, unless that is 0. Takes ``delay`` seconds.
    """

    def __init__(self, name: str, modulus: int, bad: int = 0, delay: float = 0.0) -> None:
        self.mark_name = name
        self.modulus = modulus
        self.bad = bad
        self.delay = delay

    def update(self, message: Message) -> list[Message]:
        number = message.payload[0]
        if self.delay:
            time.sleep(self.delay)
        if self.bad and number % self.bad == 0:
            raise ValueError(number)
        copies = (number % self.modulus) if self.modulus else 1
        return [message.with_payload((*message.payload, f"{self.mark_name}{copy}")) for copy in range(min(copies, 2))]


class Loads(Proc):
    """Notes in ``diary`` that it warmed up, and by which process."""

    def __init__(self, diary: str) -> None:
        self.diary = Path(diary)

    def warmup(self) -> None:
        with self.diary.open("a") as file:
            file.write(f"{os.getpid()}\n")

    def update(self, message: Message) -> Message:
        return message


class Trial(Proc):
    """Notes its name and each payload in ``diary``; raises, sleeps, holds the GIL or dies on those it is told.

    ``once``: only the first time it gets such a payload, by what is in the diary.
    """

    def __init__(
        self,
        name: str,
        diary: str,
        raises: tuple[Any, ...] = (),
        sleeps: tuple[Any, ...] = (),
        grips: tuple[Any, ...] = (),
        dies: tuple[Any, ...] = (),
        seconds: float = 20.0,
        once: bool = False,
    ) -> None:
        self.line = name
        self.diary = Path(diary)
        self.raises, self.sleeps, self.grips, self.dies = raises, sleeps, grips, dies
        self.seconds = seconds
        self.once = once

    def update(self, message: Message) -> Message:
        payload = message.payload
        with self.diary.open("a") as file:
            file.write(f"{self.line} {payload}\n")
        if self.once and self.diary.read_text().splitlines().count(f"{self.line} {payload}") > 1:
            return message
        if payload in self.raises:
            raise ValueError(f"{payload!r} is not to my taste")
        if payload in self.sleeps:
            time.sleep(self.seconds)
        if payload in self.grips:
            hold(self.seconds)
        if payload in self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return message


class Drop(Sink):
    """A sink that runs elsewhere: appends the payload to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def update(self, message: Message) -> None:
        with open(self.path, "a") as file:
            file.write(f"{message.payload}\n")


@node(queue="remote")
def add(value: int, amount: int = 1) -> int:
    """A function as a node."""
    return value + amount


class Together(Proc):
    """Takes several at once: doubles numbers and arrays, and says in ``size`` with how many others each one came.

    ``bad`` payloads make the batch raise; ``gate``: it waits for that file; ``wrong``: returns one output too few
    (``short``) or a ``generator``; a payload of text is returned as it is, which no proc may do, or raises late
    (``late``); one that is a float sleeps so long. ``diary``: a line for each call.
    """

    def __init__(
        self, bad: list[Any] | None = None, gate: str = "", wrong: str = "", diary: str = "", delay: float = 0.0
    ) -> None:
        self.bad = bad or []
        self.gate = gate
        self.wrong = wrong
        self.diary = diary
        self.delay = delay

    def update_batch(self, messages: list[Message]) -> Any:
        if self.diary:
            with open(self.diary, "a") as file:
                file.write(f"{json.dumps([m.payload for m in messages])}\n")
        while self.gate and not Path(self.gate).exists():
            time.sleep(0.01)
        self.logger.warning("about to run %d", len(messages))
        time.sleep(self.delay + sum(m.payload for m in messages if isinstance(m.payload, float)))
        for message in messages:
            if not isinstance(message.payload, np.ndarray) and message.payload in self.bad:
                raise ValueError(f"{message.payload!r} is not to my taste")
        outputs = [self.one(message, len(messages)) for message in messages]
        return {"": outputs, "short": outputs[:-1], "generator": iter(outputs)}[self.wrong]

    def one(self, message: Message, size: int) -> Any:
        """What comes out for one message: nothing for 0, two for 1, a number for a text."""
        meta = {"size": size, "pid": os.getpid()}
        match message.payload:
            case np.ndarray():
                return message.with_payload(message.payload * 2).with_meta(**meta)
            case "late":
                return self.late(message)
            case str():
                return message.payload
            case 0:
                return None
            case 1:
                return (message.with_payload(copy).with_meta(**meta) for copy in "ab")
        return message.with_payload(message.payload * 2).with_meta(**meta)

    def late(self, message: Message) -> Iterator[Message]:
        """Raise when it is run, not when it is made."""
        yield message
        raise ValueError("too late")


class DropTogether(Sink):
    """A sink that takes several at once: appends a line with their payloads to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def update_batch(self, messages: list[Message]) -> None:
        with open(self.path, "a") as file:
            file.write(f"{json.dumps([message.payload for message in messages])}\n")


class Ticks(Sink):
    """Adds a byte to a file for each message: its size says how many there were."""

    def __init__(self, path: str, delay: float = 0.0) -> None:
        self.path = path
        self.delay = delay

    def update(self, message: Message) -> None:
        time.sleep(self.delay)
        with open(self.path, "ab") as file:
            file.write(b".")
