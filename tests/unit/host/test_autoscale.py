"""How many workers are wanted, by what waits: up at once, down late, never below what is in hand."""

from __future__ import annotations

from celerypipe.host.allowed import Autoscale
from celerypipe.host.autoscale import QueueLoad, Scaler

RULE = Autoscale(max=4, min=0, target_wait=5.0, cooldown=30.0)


def test_from_zero_one_comes_at_once_and_more_when_the_oldest_has_waited() -> None:
    scaler = Scaler(RULE)
    assert scaler.want(QueueLoad(), 1, 0) == 0
    assert scaler.want(QueueLoad(waiting=1, oldest=0.1), 1, 1) == 1
    assert scaler.want(QueueLoad(waiting=9, in_hand=1, oldest=4.9), 1, 2) == 1, "nothing has waited for too long"
    assert scaler.want(QueueLoad(waiting=9, in_hand=1, oldest=5.1), 1, 3) == 4, "as many as may be"


def test_no_more_than_take_all_of_it() -> None:
    scaler = Scaler(RULE)
    scaler.want(QueueLoad(waiting=1), 2, 0)
    assert scaler.want(QueueLoad(waiting=3, in_hand=2, oldest=9), 2, 1) == 3


def test_one_long_message_needs_one_worker_however_old_it_is() -> None:
    scaler = Scaler(RULE)
    assert [scaler.want(QueueLoad(in_hand=1, oldest=now), 1, now) for now in range(0, 200, 10)] == [1] * 20


def test_it_shrinks_only_after_the_cooldown_since_the_last_was_finished_and_never_below_what_is_in_hand() -> None:
    scaler = Scaler(RULE)
    for now in range(3):
        scaler.want(QueueLoad(waiting=8, oldest=9), 1, now)
    assert scaler.count == 4
    assert scaler.want(QueueLoad(in_hand=3), 1, 20) == 4
    assert scaler.want(QueueLoad(in_hand=3), 1, 33) == 3, "of four one had nothing to do for so long"
    assert scaler.want(QueueLoad(), 1, 34) == 3
    assert scaler.want(QueueLoad(), 1, 63) == 3
    assert scaler.want(QueueLoad(), 1, 64.1) == 0
    assert scaler.want(QueueLoad(waiting=1), 1, 65) == 1, "and back"


def test_what_others_take_is_theirs_and_the_least_stays() -> None:
    scaler = Scaler(Autoscale(max=4, min=1))
    assert scaler.want(QueueLoad(), 1, 0) == 1
    assert scaler.want(QueueLoad(waiting=3, oldest=9, elsewhere=2), 1, 1) == 1
    assert scaler.want(QueueLoad(waiting=4, oldest=9, elsewhere=2), 1, 2) == 2
