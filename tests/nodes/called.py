"""Functions that the tests call on real workers of queue ``calls`` (``imports = ["tests.nodes.called"]``)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from celerypipe import File, Message, node
from celerypipe.errors import ConfigError

#: What a worker of these functions has in its configuration.
CONFIG = 'imports = ["tests.nodes.called"]\n'


@node(queue="calls")
def takes_nothing() -> str:
    """Takes nothing."""
    return "of nothing"


@node(queue="calls")
def same(value: Any) -> Any:
    """Return what it gets."""
    return value


@node(queue="calls")
def ones(*shape: int) -> NDArray[Any]:
    """An array of ones."""
    return np.ones(shape)


@node(queue="calls")
def add(one: Any, other: Any = 0) -> Any:
    """The sum."""
    return one + other


@node(queue="calls")
def total(values: Any) -> Any:
    """The sum of many, of a list or of the values of a dict."""
    return sum(values.values() if isinstance(values, dict) else values)


@node(queue="calls")
def described(*values: Any, **named: Any) -> str:
    """What it was given, with types."""
    return repr((values, sorted(named.items())))


@node(queue="calls")
def nothing(_: Any = None) -> None:
    """Return None."""


@node(queue="calls")
def process(_: Any = None) -> int:
    """Who runs it."""
    return os.getpid()


@node(queue="calls")
def nap(seconds: float, value: Any = None) -> Any:
    """Sleep, then return the value."""
    time.sleep(seconds)
    return value


@node(queue="calls")
def noted(path: str, value: Any = None) -> Any:
    """Add a line to a file, with the process, and return the value."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    return value


@node(queue="calls")
def noted_after(value: Any, path: str) -> Any:
    """The same, the value first."""
    return noted(path, value)


@node(queue="calls")
def gate(begun: str, gone_on: str, value: Any = None) -> Any:
    """Say by a file that it is at work, and wait for another one."""
    Path(begun).touch()
    while not Path(gone_on).exists():
        time.sleep(0.01)
    return value


@node(queue="calls")
def meet(number: int, folder: str, count: int) -> int:
    """Wait until so many are here; return the process."""
    Path(folder, str(number)).touch()
    while len(list(Path(folder).iterdir())) < count:
        time.sleep(0.01)
    return os.getpid()


@node(queue="calls")
def sometimes(begun: str, gone_on: str) -> str:
    """As gate if it has a path, else at once."""
    if begun:
        Path(begun).touch()
        while not Path(gone_on).exists():
            time.sleep(0.01)
    return begun


@node(queue="calls")
def large(number: int, size: int = 300_000) -> NDArray[Any]:
    """An array that lies apart."""
    return np.full(size, number, np.float64)


@node(queue="calls")
def large_noted(path: str, number: int, size: int = 300_000) -> NDArray[Any]:
    """The same, with a line in a file for each time."""
    with open(path, "a") as file:
        file.write(f"{number}\n")
    return np.full(size, number, np.float64)


@node(queue="calls")
def size(file: File) -> int:
    """How many bytes are in it."""
    return len(Path(file).read_bytes())


@node(queue="calls")
def many_words(count: int) -> list[str]:
    """Plain values that are so many that they lie apart, head and all."""
    return [f"word {number}" for number in range(count)]


@node(queue="calls")
def first_and_length(values: Any) -> tuple[Any, int]:
    """What tells whether it arrived whole."""
    return (values[0], len(values))


@node(queue="calls", cache="1h", version="1")
def remembered(path: str, value: Any, scale: Any = 2) -> Any:
    """A value times a scale, remembered; with a line in a file for each time."""
    with open(path, "a") as file:
        file.write("once\n")
    if isinstance(value, str) and value == "bad":
        raise ValueError("bad it is")
    if isinstance(value, str) and value == "slow":
        time.sleep(30)
    return value * scale


@node(queue="calls", cache="1h", version="1")
def exact(what: str, _: str) -> Any:
    """Values of four kinds."""
    return {"array": np.ones((2, 3, 4)), "number": 1 + 2, "tuple": (1, 2, 3), "none": None}[what]


@node(queue="calls", cache="1h", version="1")
def picky(path: str, number: int) -> int:
    """Refuse each fourth number; with a line in a file for each time."""
    return _taste(path, number)


@node(queue="calls", cache={"failures": True}, version="1")
def picky_for_good(path: str, number: int) -> int:
    """The same, and a failure is remembered."""
    return _taste(path, number)


def _taste(path: str, number: int) -> int:
    with open(path, "a") as file:
        file.write(f"{number}\n")
    if number % 4 == 3:
        raise ValueError(f"{number} is not to my taste")
    return number


@node(queue="calls")
def refuse(value: Any) -> Any:
    """Raise ValueError."""
    raise ValueError(f"{value!r} is not to my taste")


class Speechless(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


@node(queue="calls")
def fail_oddly(how: str) -> None:
    """Raise what is hard to tell of."""
    raise Speechless if how == "speechless" else OSError(f"no such file: {os.fsdecode(bytes([255]))}")


@node(queue="calls")
def misconfigured(_: Any = None) -> None:
    """Raise what is known of nodes that cannot be made."""
    raise ConfigError("the threshold is too high")


@node(queue="calls")
def unsendable(_: Any = None) -> Any:
    """Return what cannot travel."""
    return {"inside": object()}


@node(queue="calls", timeout=2.0)
def hurried(seconds: float) -> float:
    """As nap, with a timeout."""
    time.sleep(seconds)
    return seconds


@node(queue="calls")
def die(_: Any = None) -> None:
    """Kill its own process."""
    os.kill(os.getpid(), signal.SIGKILL)


@node(queue="calls")
def of_message(message: Message) -> Message:
    """A node of pipelines."""
    return message


@node(queue="calls", stateful=True)
def remembering(value: Any) -> Any:
    """A stateful one."""
    return value


@node(queue="nobody")
def unserved(value: Any) -> Any:
    """One whose queue has no worker."""
    return value


@node
async def awaiting(value: Any) -> Any:
    """Nobody awaits it."""
    return value


def undecorated(value: Any) -> Any:
    """No node."""
    return value


class Doubling:
    """A class."""

    def double(self, value: int) -> int:
        """A method."""
        return 2 * value
