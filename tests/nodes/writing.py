"""Nodes that write into what they are given, or into what they have sent (``imports = ["tests.nodes.writing"]``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celerypipe import Message, Proc, Readings, Source, node

#: What a worker of these nodes has in its configuration.
CONFIG = 'imports = ["tests.nodes.writing"]\n'


class Raise(Proc):
    """Adds one to its array, where that lies."""

    def update(self, message: Message) -> Message:
        np.add(message.payload, 1, out=message.payload)
        return message


class RaiseCopy(Raise):
    """The same, and says so."""

    writable = True


class RaiseEach(RaiseCopy):
    """Adds one to several, unless one of them is ``bad``: after it has written into all of them."""

    def __init__(self, bad: float = -1.0) -> None:
        self.bad = bad

    def update_batch(self, messages: list[Message]) -> list[Message]:
        is_bad = [message.payload[0] == self.bad for message in messages]
        outputs = [super(RaiseEach, self).update(message) for message in messages]
        if any(is_bad):
            raise ValueError("bad")
        return outputs

    def update(self, message: Message) -> Message:
        return self.update_batch([message])[0]


class Look(Proc):
    """Sends the first number of its array."""

    def update(self, message: Message) -> Message:
        return message.with_payload(float(message.payload[0]))


class Previous(Proc):
    """Sends what it is given on, with the first number of what it sent on before."""

    before: NDArray[Any] | None = None

    def update(self, message: Message) -> Message:
        before, self.before = self.before, message.payload
        return message.with_meta(before=None if before is None else float(before[0]))


class Append(Proc):
    """Adds to the lists that it is given, and sends how long they are."""

    def update(self, message: Message) -> Message:
        message.payload["items"].append(1)
        message.meta["notes"].append(1)
        message.meta["seen"] = True
        with message.timeit("append"):
            pass
        return message.with_payload([len(message.payload["items"]), len(message.meta["notes"]), len(message.timers)])


class AppendEach(Proc):
    """Adds to each list that was joined, and sends how long they are."""

    def update(self, message: Message) -> Message:
        for part in message.payload.messages:
            part.payload.append(1)
        return message.with_payload([len(part.payload) for part in message.payload.messages])


class Stumble(RaiseCopy):
    """Writes, and raises until the file ``path`` is there, which it makes; ``always``: it does not help."""

    def __init__(self, path: str, always: bool = False) -> None:
        self.path = Path(path)
        self.always = always

    def update(self, message: Message) -> Message:
        message.meta["notes"].append(1)
        raised = super().update(message)
        if self.always or not self.path.exists():
            self.path.touch()
            raise ValueError("stumbled")
        return raised.with_meta(notes=len(message.meta["notes"]))


class Refill(Proc):
    """Fills the same array for every message, and sends it, ``times`` times by a generator."""

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.buffer = np.zeros(3)

    def update(self, message: Message) -> Iterator[Message]:
        for number in range(self.times):
            self.buffer[:] = message.payload[0] + number / 10
            yield message.with_payload(self.buffer)
        self.buffer[:] = -1


class Deeds(Proc):
    """Does what ``deeds`` says: ``note`` adds to a list in the meta, ``refill`` sends one array twice, ``keep`` keeps
    what it was given and says whether that stayed as it was.
    """

    def __init__(self, deeds: list[str], mine: int) -> None:
        self.deeds = deeds
        self.mine = mine
        self.kept: list[tuple[NDArray[Any], float]] = []

    def update(self, message: Message) -> Iterator[Message]:
        array, notes = message.payload, message.meta["notes"]
        stayed = all(array[0] == number for array, number in self.kept)
        if "keep" in self.deeds:
            self.kept.append((array, float(array[0])))
        if "note" in self.deeds:
            notes.append((self.mine, stayed))
        if "write" in self.deeds:
            array += self.mine
            self.kept.clear()
        yield message
        if "refill" in self.deeds:
            buffer = array * 2
            for _ in range(2):
                buffer += 1
                yield message.with_payload(buffer)
                notes.append("again")
            buffer[:] = -1


class WritingDeeds(Deeds):
    """The same, with ``write``, into what it was given."""

    writable = True


class Refilling(Source):
    """Fills the same array and the same list for every message, as a camera does."""

    def __init__(self, count: int) -> None:
        self.count = count

    def messages(self) -> Iterator[Message]:
        frame, notes = np.zeros(3), [0]
        for number in range(self.count):
            frame[:] = notes[0] = number
            yield Message(frame, meta={"notes": notes})
        frame[:] = notes[0] = -1


def _with_address(array: NDArray[Any]) -> Message:
    return Message(array, meta={"address": array.ctypes.data})


class Fresh(Source):
    """Sends arrays that it does not keep, with where they lie; ``apart``: as readings."""

    def __init__(self, count: int, apart: bool = False) -> None:
        self.count = count
        self.apart = apart

    def messages(self) -> Iterator[Message]:
        sizes = [1000 + number for number in range(self.count)]
        return Readings(self.make, sizes) if self.apart else map(self.make, sizes)

    def make(self, size: int) -> Message:
        return _with_address(np.zeros(size))


class FreshEach(Proc):
    """Says whether an array lies where it was made, and sends a new one."""

    def update(self, message: Message) -> Message:
        there = message.payload.ctypes.data == message.meta["address"]
        return _with_address(message.payload + 1).with_meta(there=[*message.meta.get("there", ()), there])


class Tally(Proc):
    """Sends the dict that it counts in."""

    def __init__(self) -> None:
        self.counts: dict[str, Any] = {"seen": []}

    def update(self, message: Message) -> Message:
        self.counts["seen"].append(float(message.payload[0]))
        return message.with_payload(self.counts)


class Sum(Proc):
    """Adds up arrays in one of its own, which it remembers."""

    stateful = True

    def __init__(self) -> None:
        self.total = np.zeros(3)

    def snapshot(self) -> Any:
        return self.total

    def restore(self, state: Any) -> None:
        self.total = state

    def update(self, message: Message) -> Message:
        self.total += message.payload
        return message.with_payload(float(self.total[0]))


class Table(Proc):
    """Changes the list of its configuration, and with ``writes`` its array too."""

    def __init__(self, names: list[str], table: NDArray[Any], writes: bool = False) -> None:
        self.names = names
        self.table = table
        self.writes = writes

    def update(self, message: Message) -> Message:
        self.names.append("seen")
        if self.writes:
            self.table += 1
        return message.with_payload(len(self.names))


@node(queue="writes")
def raised(array: NDArray[Any]) -> NDArray[Any]:
    """Add one, where it lies."""
    array += 1
    return array


@node(queue="writes", writable=True)
def raised_copy(array: NDArray[Any], items: Any = ()) -> tuple[NDArray[Any], int]:
    """Add one to an array of its own."""
    array += 1
    return array, len(items)


@node(queue="writes")
def counted(count: int) -> list[int]:
    """Return a list of so many."""
    return list(range(count))


@node(queue="writes")
def length(items: list[int]) -> int:
    """Return how many there are."""
    return len(items)
