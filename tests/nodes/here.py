"""Nodes that the tests run in the runner's own process."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from celerypipe import Batch, Message, Proc, Readings, Sink, Source
from celerypipe.nodes.json_lines import JsonLinesSink, JsonLinesSource

#: What happened, in order; a test clears it.
events: list[str] = []


class Numbers(Source):
    """Yields 0 to ``count`` - 1; hangs after ``hang_after`` of them."""

    def __init__(self, count: int = 5, hang_after: int | None = None) -> None:
        self.count = count
        self.hang_after = hang_after

    def messages(self) -> Iterator[Message]:
        for number in range(self.count):
            if number == self.hang_after:
                threading.Event().wait(60)
            yield Message(number, meta={"number": number})


class Until(Source):
    """Yields its items, and ends when a file is there."""

    def __init__(self, items: list[Any], path: str) -> None:
        self.items = items
        self.path = Path(path)

    def messages(self) -> Iterator[Message]:
        for item in self.items:
            yield Message(item)
        while not self.path.exists():
            time.sleep(0.01)


class Tried(Source):
    """Reads its items one by one; raises on those in ``bad``, so many times or always, and hangs on ``slow`` ones."""

    def __init__(
        self, items: list[Any], bad: dict[Any, int | None], items_end: bool = False, slow: dict[Any, int] | None = None
    ) -> None:
        self.slow = slow or {}
        self.items = items
        self.bad = bad
        self.items_end = items_end
        self.tries: Counter[Any] = Counter()

    def messages(self) -> Iterator[Message]:
        return Readings(self.read, self.all_of_them())

    def all_of_them(self) -> Iterator[Any]:
        yield from self.items
        if self.items_end:
            raise OSError("the disk is gone")

    def read(self, item: Any) -> Message:
        self.tries[item] += 1
        if self.tries[item] <= self.slow.get(item, 0):
            threading.Event().wait(60)
        if item in self.bad and (self.bad[item] is None or self.tries[item] <= self.bad[item]):
            raise ValueError(f"{item!r} cannot be read")
        return item if isinstance(item, list) else Message(item)  # type: ignore[return-value]  # a list is a mistake


class Severed(Source):
    """A generator that sends two numbers, something that is no message, another number, and raises."""

    def messages(self) -> Iterator[Message]:
        yield Message(0)
        yield Message(1)
        yield "no message"  # type: ignore[misc]
        yield Message(2)
        raise OSError("the line is cut")


class Unsent(Source):
    """Sends numbers, and between them a list that holds itself, and what has no position."""

    def messages(self) -> Iterator[Message]:
        endless: list[Any] = []
        endless.append(endless)
        for version, payload in enumerate((0, endless, 2, "nowhere", 4)):
            yield Message(payload, version=version)

    def position(self, message: Message) -> int:
        if message.payload == "nowhere":
            raise KeyError("nowhere")
        return message.version

    def seek(self, through: Container[int | str]) -> None:
        """Leave nothing out."""


class OnADisk(JsonLinesSource):
    """Raises after ten lines, as long as the file ``gate`` is not there."""

    def __init__(self, path: str, gate: str) -> None:
        super().__init__(path)
        self.gate = Path(gate)

    def messages(self) -> Iterator[Message]:
        for number, message in enumerate(super().messages()):
            if number == 10 and not self.gate.exists():
                raise OSError("the disk is gone")
            yield message


class Notes(Sink):
    """Writes payloads, a name and a text, each into the file of that name."""

    tell_apart = "give them other names"

    def __init__(self, folder: str) -> None:
        self.target = Path(folder)

    def place(self, message: Message) -> str:
        return str(self.target / message.payload[0])

    def update(self, message: Message) -> None:
        Path(self.place(message)).write_text(message.payload[1])


class Paths(Notes):
    """As Notes, by paths; cannot tell where ``odd`` goes, and writes that to ``a``."""

    def place(self, message: Message) -> Path:  # type: ignore[override]  # as people write it
        if message.payload[0] == "odd":
            raise KeyError("odd")
        return self.target / message.payload[0]

    def update(self, message: Message) -> None:
        (self.target / message.payload[0].replace("odd", "a")).write_text(message.payload[1])


class Twice(Proc):
    """Sends what it gets two times."""

    def update(self, message: Message) -> list[Message]:
        return [message, message]


class Keep(Proc):
    """Sends on the numbers that ``every`` divides."""

    def __init__(self, every: int = 1, delay: float = 0.0) -> None:
        self.every = every
        self.delay = delay

    def update(self, message: Message) -> Message | None:
        time.sleep(self.delay)
        return message if message.payload % self.every == 0 else None


class Weigh(Proc):
    """Sends its payload on, whatever it was made with."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def update(self, message: Message) -> Message:
        return message


class Quit(Proc):
    """Ends its own thread, as a library that calls ``sys.exit`` would."""

    def update(self, message: Message) -> Message:
        sys.exit("no more")


class Labelled(Source):
    """Sends a text for each label, with that and its number in the meta; None is no label."""

    def __init__(self, labels: list[Any]) -> None:
        self.labels = labels

    def messages(self) -> Iterator[Message]:
        for number, label in enumerate(self.labels):
            meta = {"number": number} if label is None else {"number": number, "label": label}
            yield Message(f"{self.name} {number}", meta=meta)


class Torn(Proc):
    """Joins by number, takes away what it is given, and its ``next_batch`` breaks while number 1 is in there."""

    says = "both: KeyError: 'lost'"

    def next_batch(self, sources: dict[str, list[Message]]) -> dict[str, list[int]]:
        found = [{message.meta["number"]: index for index, message in enumerate(each)} for each in sources.values()]
        links = list(sources)
        for messages in sources.values():
            messages.clear()
        sources.clear()
        if any(1 in each for each in found):
            return self.breaks()
        common = set.intersection(*map(set, found)) if len(found) == 2 else set()
        return {link: [each[min(common)]] for link, each in zip(links, found, strict=True)} if common else {}

    def breaks(self) -> Any:
        raise KeyError("lost")

    def update(self, message: Message) -> Message:
        return message


class Greedy(Torn):
    """Wants what is not there."""

    says = "both: LookupError: next_batch() wants 99 of 'left', where "

    def breaks(self) -> Any:
        return {"left": [99, 0]}


class Shapeless(Torn):
    """Wants nothing, and says it wrongly."""

    says = "both: TypeError: next_batch() returned a NoneType; return {link: [indices]}"

    def breaks(self) -> Any:
        return None


class Opened(Sink):
    """Notes its life in ``events``."""

    def warmup(self) -> None:
        events.append("warmup")

    def update(self, message: Message) -> None:
        events.append(f"update {message.payload}")

    def destroy(self) -> None:
        events.append("destroy")


class Cold(Sink):
    """Cannot warm up, once the others could."""

    def warmup(self) -> None:
        while "warmup" not in events:
            time.sleep(0.001)
        raise OSError("no such device")


class Halt(Proc):
    """Waits for the file ``gate`` when a message has the name ``at``."""

    def __init__(self, at: str, gate: str) -> None:
        self.at = at
        self.gate = Path(gate)

    def update(self, message: Message) -> Message:
        while message.meta.get("name") == self.at and not self.gate.exists():
            time.sleep(0.01)
        return message


class Trap(Proc):
    """Raises on the payload ``at`` until the file ``gate`` is there, once ``out`` has ``after`` lines."""

    def __init__(self, at: Any, gate: str, out: str, after: int) -> None:
        self.at = at
        self.gate = Path(gate)
        self.out = Path(out)
        self.after = after

    def update(self, message: Message) -> Message:
        payload = message.payload
        found = payload.messages[0].payload if isinstance(payload, Batch) else payload
        found = list(found) if isinstance(found, tuple) else found
        if found == self.at and not self.gate.exists():
            while self.out.read_text().count("\n") < self.after:
                time.sleep(0.001)
            raise RuntimeError(f"{found} fell into the trap")
        return message


class Keyed(Sink):
    """Notes the key of each message in a file; ``odd`` payloads fail, or hang, the first time."""

    def __init__(self, path: str, odd: dict[int, str] | None = None) -> None:
        self.path = Path(path)
        self.odd = odd or {}

    def update_once(self, message: Message, key: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{key}\n")
        if self.path.read_text().splitlines().count(key) == 1 and message.payload in self.odd:
            if self.odd[message.payload] == "hang":
                time.sleep(20)
            raise ValueError(message.payload)


class Remembering(Proc):
    """Is stateful, and says so."""

    stateful = True

    def update(self, message: Message) -> Message:
        return message


class Dozes(JsonLinesSink):
    """Writes lines, and hangs on the first payload 2 that it gets, whoever got it."""

    dozed = False

    def update(self, message: Message) -> None:
        if message.payload == 2 and not Dozes.dozed:
            Dozes.dozed = True
            time.sleep(20)
        super().update(message)


class Quoting(Proc):
    """Quotes what it was given in the error that it raises: at each message, or while it is made."""

    def __init__(self, token: str = "", where: str = "", at_once: bool = False) -> None:
        self.quoted = f"{token} is no token of {where}"
        if at_once:
            raise ValueError(self.quoted)

    def update(self, message: Message) -> Message:
        raise ValueError(self.quoted)


class Recordings(Source):
    """Sends so many large arrays; ``all_sent`` is set once the last of them found room, or was dropped."""

    all_sent = threading.Event()

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size
        self.all_sent.clear()

    def messages(self) -> Iterator[Message]:
        for _ in range(self.count):
            yield Message(np.zeros(self.size, np.uint8))
        self.all_sent.set()


class Slow(Proc):
    """Begins with its first message when all of :class:`Recordings` are sent."""

    def update(self, message: Message) -> Message:
        assert Recordings.all_sent.wait(20)
        return message.with_payload(len(message.payload))
