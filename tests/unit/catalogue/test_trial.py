"""check_node: a node in a test of its own project."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from celerypipe import CodecError, ConfigError, Message, NodeFailed, Proc, Sink, Source, check_node, node


class Upper(Proc):
    """Writes texts in capitals."""

    def __init__(self, suffix: str = "") -> None:
        self.suffix = suffix

    def warmup(self) -> None:
        self.warm = True

    def update(self, message: Message) -> Message | None:
        assert self.warm
        return message.with_payload(message.payload.upper() + self.suffix) if message.payload else None


class Sum(Proc):
    """Adds up numbers; remembers the sum, and forgets ``lost``."""

    stateful = True

    def __init__(self) -> None:
        self.sum, self.lost = 0, 0

    def update(self, message: Message) -> Message:
        self.sum += message.payload
        self.lost += message.payload
        return message.with_payload((self.sum, self.lost))

    def snapshot(self) -> Any:
        return {"sum": self.sum}

    def restore(self, state: Any) -> None:
        self.sum = state["sum"]


class Writes(Proc):
    """Writes into what it is given."""

    def update(self, message: Message) -> Message:
        message.payload[0] = 1
        return message


class Odd(Proc):
    """Returns what no proc may."""

    def update(self, message: Message) -> Any:
        return 3


class Lengths(Proc):
    """Takes several at once."""

    def update_batch(self, messages: list[Message]) -> list[Message]:
        return [message.with_payload((len(message.payload), len(messages))) for message in messages]


class Count(Source):
    """Counts."""

    def __init__(self, most: int) -> None:
        self.most = most

    def messages(self) -> Iterator[Message]:
        yield from map(Message, range(self.most))


class Keep(Sink):
    """Keeps what comes."""

    kept: list[Any] = []  # noqa: RUF012  # outlives the node, for the test

    def update(self, message: Message) -> None:
        self.kept.append(message.payload)


@node
def double(message: Message, times: int = 2) -> Message:
    """Multiplies."""
    return message.with_payload(message.payload * times)


@node
def add(value: int, amount: int = 1) -> int:
    """Adds; takes plain values."""
    return value + amount


def payloads(*arguments: Any, **configuration: Any) -> list[Any]:
    return [message.payload for message in check_node(*arguments, **configuration)]


def test_a_node_lives_and_its_messages_travel() -> None:
    assert payloads(Upper, ["a", "", Message("b")], suffix="!") == ["A!", "B!"]
    assert payloads(double, [2, (1,)], times=3) == [6, (1, 1, 1)]
    assert payloads(add, [1, 2], amount=2) == [3, 4]
    assert payloads(Count, most=3) == [0, 1, 2]
    assert payloads(Lengths, ["a", "bb"]) == [(1, 2), (2, 2)]
    assert check_node(Keep, ["kept"]) == []
    assert Keep.kept == ["kept"]


def test_what_would_fail_on_a_worker_fails() -> None:
    with pytest.raises(ValueError, match="read-only"):
        check_node(Writes, [np.zeros(3)])
    with pytest.raises(CodecError):
        check_node(Upper, [object()])
    with pytest.raises(ConfigError, match="did you mean 'suffix'"):
        check_node(Upper, ["a"], sufix="!")
    with pytest.raises(AttributeError, match="upper"):
        check_node(Upper, [3])
    with pytest.raises(NodeFailed, match="not a Message"):
        check_node(Odd, [1])


def test_what_a_stateful_node_does_not_remember_is_lost() -> None:
    assert payloads(Sum, [1, 2, 3]) == [(1, 1), (3, 2), (6, 3)]


class Locked(Sum):
    """Remembers what cannot travel."""

    def snapshot(self) -> Any:
        return threading.Lock()


def test_a_state_that_cannot_travel_is_named_as_that() -> None:
    with pytest.raises(CodecError, match=r"^snapshot\(\) returned what cannot travel: value: a _thread.lock"):
        check_node(Locked, [1])


def test_what_cannot_be_tried_says_so() -> None:
    with pytest.raises(TypeError, match="check_node takes a node class"):
        check_node(print, ["a"])
    for one in ("text", b"bytes", {"a": 1}, np.zeros(2), Message("text"), 3, None):
        with pytest.raises(TypeError, match=f"inputs: one {type(one).__name__}; write a list of messages or payloads"):
            check_node(Upper, one)
    with pytest.raises(TypeError, match="Count is a source"):
        check_node(Count, [1], most=1)
