"""Several messages at once: who may get them, how they gather, what comes out for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from celerypipe import Message, NodeFailed, Proc, Sink, Source
from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance, update_batch
from celerypipe.contract.contract import Output, takes_batches
from celerypipe.mailbox.wire import Entry as Letter
from celerypipe.worker.activation import gathering as batches
from celerypipe.worker.activation.gathering import Gathering, groups_of


class One(Proc):
    """Takes one at a time."""

    def update(self, message: Message) -> Message:
        return message


class Many(Proc):
    """Returns what it was told."""

    def __init__(self, outputs: Any) -> None:
        self.outputs = outputs

    def update_batch(self, messages: list[Message]) -> Sequence[Output]:
        return self.outputs


class Empty(Proc):
    """Takes nothing."""


class Swallow(Sink):
    """Notes what it got."""

    got: Any = None

    def update_batch(self, messages: list[Message]) -> None:
        self.got = messages


def warm(node: type[Any], **configuration: Any) -> Instance:
    instance = Instance(Listing(f"m.{node.__name__}", node, "import"), configuration, name="node")
    instance.warm()
    return instance


def letters(*alone: int) -> list[Letter]:
    """One for each number; 1: it is run by itself."""
    return [Letter(f"1-{number}", number, 0, "", b"", alone=one == 1) for number, one in enumerate(alone)]


class Clock:
    """Stands for the module ``time``."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(batches, "time", clock)
    return clock


def test_who_takes_several() -> None:
    assert [takes_batches(each) for each in (One, Many, Empty, Swallow, Source, Proc, Sink)] == [
        False,
        True,
        False,
        True,
        False,
        False,
        False,
    ]


def test_a_node_that_takes_several_takes_one() -> None:
    message = Message(1)
    assert [output.id for output in warm(Many, outputs=[message]).update(message)] == [message.id]
    assert warm(Many, outputs=[None]).update(message) == []
    with pytest.raises(NodeFailed, match=r"node: update_batch\(\) returned 2 outputs for 1 message; return a list"):
        warm(Many, outputs=[None, None]).update(message)
    swallow = warm(Swallow)
    assert swallow.update(message) == []
    assert swallow.node.got == [message]  # type: ignore[union-attr]
    with pytest.raises(NotImplementedError, match=r"Empty has no update\(\) method"):
        warm(Empty).update(message)


def test_each_message_has_an_outcome() -> None:
    one, two = Message(1), Message(2)

    def late() -> Any:
        yield one
        raise ValueError("too late")

    outcomes = update_batch(warm(Many, outputs=(None, one, [one, two], late(), 7)), [one] * 5)
    found = [[output.id for output in outcome] for outcome in outcomes[:3] if isinstance(outcome, list)]
    assert found == [[], [one.id], [one.id, two.id]]
    assert isinstance(outcomes[3], ValueError)
    assert "not a Message" in str(outcomes[4])
    assert update_batch(warm(Swallow), [one, two]) == [[], []]


@pytest.mark.parametrize(
    ("outputs", "found"),
    [([None], "1 outputs"), ([], "0 outputs"), (None, "a NoneType"), ("ab", "a str"), (Message(1), "a Message")],
)
def test_what_is_not_one_output_for_each_is_the_failure_of_all(outputs: Any, found: str) -> None:
    outcomes = update_batch(warm(Many, outputs=outputs), [Message(1), Message(2)])
    assert [type(outcome) for outcome in outcomes] == [NodeFailed, NodeFailed]
    assert f"node: update_batch() returned {found} for 2 messages; return a list with one output" in str(outcomes[0])


def test_a_suspect_is_run_by_itself() -> None:
    groups = groups_of(letters(0, 0, 0, 1, 0, 1, 1, 0, 0), 2)
    assert [[letter.sequence for letter in group] for group in groups] == [[0, 1], [2], [3], [4], [5], [6], [7, 8]]
    assert groups_of([], 2) == []
    assert [len(group) for group in groups_of(letters(0, 0), 1)] == [1, 1]


def test_whole_batches_leave_at_once_and_the_rest_after_its_wait(clock: Clock) -> None:
    gathering = Gathering(3, 0.5)
    assert not gathering
    found = letters(*[0] * 7)
    gathering.add(found[:2])
    assert gathering.take() == []
    assert gathering.left == 0.5
    clock.now += 0.4
    gathering.add(found[2:7])
    assert gathering.take() == found[:6]
    assert (len(gathering), gathering.left) == (1, 0.5)  # it came just now
    clock.now += 0.5
    assert gathering.take() == found[6:]
    assert not gathering


def test_a_suspect_waits_for_nobody_and_takes_along_what_is_before_it(clock: Clock) -> None:
    gathering = Gathering(4, 9.0)
    found = letters(0, 1, 0)
    gathering.add(found)
    assert gathering.take() == found[:2]
    assert (len(gathering), gathering.left) == (1, 9.0)


def test_without_a_wait_all_leave_at_once_and_at_the_end_too(clock: Clock) -> None:
    eager, patient = Gathering(3, 0.0), Gathering(3, 9.0)
    for gathering in (eager, patient):
        gathering.add(letters(0, 0, 0, 0))
    assert len(eager.take()) == 4
    assert len(patient.take(everything=True)) == 4
