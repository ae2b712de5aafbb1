"""A message that goes on in the same process: what the runner is told of it, and when nothing more may begin."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celerypipe import Message, codec
from celerypipe.mailbox.blob.blob import Store, Stowed
from celerypipe.mailbox.onward import AT_WORK, unpack
from celerypipe.mailbox.wire import NOTE, RESULT, Answer, Entry
from celerypipe.worker.activation import relay
from celerypipe.worker.activation.alarm import Unarmed
from celerypipe.worker.activation.deadman import DeadMan
from celerypipe.worker.activation.relay import Relay


class Stand:
    """Stands for a node that is served: ``update`` is called with each message."""

    def __init__(self, name: str, update: Callable[[Message], list[Message]], following: Stand | None = None) -> None:
        self.name, self.next, self.runs_on = name, following, True
        self.done = self.failed = 0
        self.instance = SimpleNamespace(update=update)
        self.spends: list[float] = []
        self.printed = b""

    def sign(self, message: str) -> None:
        """Say nothing."""

    def call(self, function: Any, message: Message, name: str) -> Any:
        return Unarmed(DeadMan(None)).call(None, function, message, name)

    def encoded(self, outputs: list[Message], *_: Any) -> tuple[Stowed, int]:
        return (Stowed(joined(outputs), "", []), 1) if outputs else (Stowed(b"", "blob", [("SET", "blob", 1)]), 1000)

    def failure(self, error: BaseException) -> bytes:
        return str(error).encode()

    def spent(self, seconds: float, messages: int) -> None:
        self.spends.append(seconds / messages)


def joined(messages: list[Message]) -> bytes:
    return codec.encode_joined(messages)


def relay_of(*messages: Message) -> Relay:
    answer = Answer(Entry("1-1", 1, 0, "", b""), RESULT, 0.0, 0.0, "", joined(list(messages)))
    return Relay(answer, None, Store("run"), "")


@pytest.fixture(autouse=True)
def told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "TELL_AFTER", 0.0)
    monkeypatch.setattr(relay, "GO_ON", 60.0)


def test_what_could_not_be_sent_is_sent_again_and_once() -> None:
    sent: list[Answer] = []

    def refused(answer: Answer) -> None:
        raise ConnectionError

    def update(message: Message) -> list[Message]:
        with pytest.raises(ConnectionError):
            on.note(refused)
        on.note(sent.append)
        on.note(sent.append)
        return [message]

    on = relay_of(Message(1))
    answer = on.run(Stand("head", update, Stand("next", update)), Message(0))  # type: ignore[arg-type]
    assert [each.kind for each in sent] == [NOTE]
    (step,) = unpack(sent[0].onward)
    assert step is not None
    assert step.kind == AT_WORK
    assert unpack(answer.onward) != (None,)


def test_nothing_more_begins_once_the_runner_was_told() -> None:
    def update(message: Message) -> list[Message]:
        if message.payload == 2:
            on.note(lambda answer: None)
        return [message]

    last = Stand("last", update)
    on = relay_of(*map(Message, (1, 2, 3)))
    answer = on.run(Stand("head", update, Stand("next", update, last)), Message(0))  # type: ignore[arg-type]
    one, two, three = unpack(answer.onward)
    assert one is not None
    assert len(one.onward) == 1
    assert two is not None
    assert two.onward == ()  # the runner counts the time of the node that it was told of, not that of the one after it
    assert three is None
    assert last.done == 1


def test_what_the_next_nodes_made_counts_for_the_size_of_the_answer() -> None:
    on = relay_of(Message(1), Message(2))
    on.run(Stand("head", lambda message: [], Stand("next", lambda message: [])), Message(0))  # type: ignore[arg-type]
    assert on.size == 2000


def test_the_time_of_a_failure_counts_for_the_mean() -> None:
    def raises(message: Message) -> list[Message]:
        raise ValueError(message.payload)

    failing = Stand("next", raises)
    relay_of(Message(1)).run(Stand("head", raises, failing), Message(0))  # type: ignore[arg-type]
    assert len(failing.spends) == failing.done == failing.failed == 1


def test_what_cannot_be_read_is_left_to_the_runner() -> None:
    on = Relay(relay_of()._answer._replace(data=b"rubbish"), None, Store("run"), "")
    following = Stand("next", lambda message: [message])
    assert on.run(Stand("head", lambda message: [], following), Message(0)).onward == b""  # type: ignore[arg-type]
    assert following.done == 0
