"""The alarm that ends an ``update``: it hits the message it is meant for, and no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from celerypipe import Message
from celerypipe.worker.activation.alarm import Alarm, Interrupted
from celerypipe.worker.activation.deadman import DeadMan


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    with Alarm(DeadMan(None)) as alarm:
        yield alarm


def wait(message: Message) -> list[Message]:
    """Until interrupted, at most as long as a test may take."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.005)
    raise AssertionError("nobody interrupted this")


def test_time_is_over(alarm: Alarm) -> None:
    with pytest.raises(Interrupted) as caught:
        alarm.call(0.05, wait, Message(1), "m1")
    assert caught.value.reason == "timeout"


def test_an_interrupt_that_is_swallowed_is_raised_again(alarm: Alarm) -> None:
    swallowed: list[BaseException] = []

    def deaf_at_first(message: Message) -> list[Message]:
        try:
            return wait(message)
        except Interrupted as interrupt:
            swallowed.append(interrupt)
        return wait(message)

    with pytest.raises(Interrupted) as caught:
        alarm.call(0.05, deaf_at_first, Message(1), "m1")
    assert swallowed
    assert caught.value is not swallowed[0]
    assert alarm.interrupted


@pytest.mark.parametrize("name", ["m1", ""])
def test_another_thread_interrupts(alarm: Alarm, name: str) -> None:
    timer = threading.Timer(0.05, alarm.interrupt, ("withdrawn", name))
    timer.start()
    with pytest.raises(Interrupted) as caught:
        alarm.call(None, wait, Message(1), "m1")
    timer.join()
    assert caught.value.reason == "withdrawn"


def test_an_interrupt_for_the_message_before_is_no_ones(alarm: Alarm) -> None:
    def late(message: Message) -> list[Message]:
        alarm.interrupt("withdrawn", "m1")
        time.sleep(0.01)  # the signal, if any, is handled here
        return [message]

    message = Message(2)
    assert alarm.call(None, late, message, "m2") == [message]


def test_between_two_messages_nothing_is_interrupted(alarm: Alarm) -> None:
    alarm.call(1.0, lambda message: [message], Message(1), "m1")
    alarm.interrupt("withdrawn", "m1")
    assert alarm.call(1.0, lambda message: [], Message(2), "m2") == []


def test_the_time_still_counts_after_an_interrupt_for_another(alarm: Alarm) -> None:
    timer = threading.Timer(0.02, alarm.interrupt, ("withdrawn", "m1"))
    timer.start()
    with pytest.raises(Interrupted) as caught:
        alarm.call(0.1, wait, Message(2), "m2")
    timer.join()
    assert caught.value.reason == "timeout"
