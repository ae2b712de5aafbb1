"""What a runner keeps of a stateful warped node."""

from __future__ import annotations

import threading

import pytest

from celerypipe import Message
from celerypipe.mailbox.fence import GIVEN_UP
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.retained import Retained


def out(*sequences: int) -> dict[int, Flight]:
    """Messages that are out, sent a moment ago."""
    return {sequence: Flight(sequence, Message(sequence), sent_at=1.0) for sequence in sequences}


def test_what_was_given_up_before_the_node_was_known_is_told_to_who_serves_it() -> None:
    retained = Retained(threading.RLock(), out(2, 3, 5), 7)
    assert retained.last == 1
    assert [(flight.sequence, flight.attempt) for flight in retained.since(())] == [
        (2, 0),
        (3, 0),
        (4, GIVEN_UP),
        (5, 0),
        (6, GIVEN_UP),
    ]
    assert Retained(threading.RLock(), {}, 7).last == 6


def test_a_message_is_kept_until_a_snapshot_has_it_and_all_before_it_are_answered() -> None:
    flights = out(0, 1, 2)
    retained = Retained(threading.RLock(), flights, 3)
    for sequence in (0, 2):
        retained.keep(flights.pop(sequence))
    assert retained.answered_up_to(0)
    assert not retained.answered_up_to(2), "its result is on its way, and who goes back needs it"
    retained.doubtful = True
    assert not retained.answered_up_to(0), "what was given up may be in that snapshot all the same"
    retained.doubtful = False
    assert [flight.sequence for flight in retained.saved(0, b"state")] == [0]
    assert (retained.last, retained.data) == (0, b"state")
    assert [flight.sequence for flight in retained.since(())] == [1, 2]


def test_what_is_not_sent_yet_is_not_sent_twice() -> None:
    flights = out(0, 1, 2, 3)
    flights[1].sent_at = 0.0  # it will be, by who accepted it
    flights[2].remaking = True
    retained = Retained(threading.RLock(), flights, 4)
    retained.keep(flights.pop(3))
    assert [flight.sequence for flight in retained.since((flights[0],))] == [3]
    answered = flights.pop(0)
    retained.keep(answered)
    assert retained.keeps(answered), "whoever waits to send it sends it, though its result is here"
    retained.forget()
    assert retained.since(flights.values()) == []


def test_what_is_given_up_in_a_row_becomes_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody serves the node nobody takes a snapshot, and an endless source goes on."""
    monkeypatch.setattr("celerypipe.runner.warp.retained.MANY", 4)
    retained = Retained(threading.RLock(), {}, 0)
    retained.keep(Flight(2, Message(2)))
    words = [retained.give_up(number, Message(number)) for number in (0, 1, 3, 4, 5)]
    assert retained.merge()
    assert [(flight.sequence, flight.data) for flight in retained.since(())] == [(0, b"1"), (2, None), (3, b"5")]
    assert [word.done for word in words] == [False, True, False, True, True], "the sender passes over the others"
    more = [retained.give_up(number, Message(number)) for number in (6, 7, 8)]
    assert retained.merge()
    assert [(flight.sequence, flight.data) for flight in retained.since(more)] == [(0, b"1"), (2, None), (3, b"8")]
    assert not retained.merge()
    assert [flight.sequence for flight in retained.saved(8, b"state")] == [2, 0, 3]
