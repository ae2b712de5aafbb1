"""When a worker that died starts again: each word of the policy decides alone once."""

from __future__ import annotations

import pytest

from celerypipe.host.allowed import RestartPolicy
from celerypipe.host.restarts import Restarts


def _none() -> float:
    return 0.0


def _starts(policy: RestartPolicy, deaths: list[float]) -> list[float | None]:
    restarts = Restarts(policy, _none)
    return [restarts.after_death(now) for now in deaths]


def test_attempts_end_it() -> None:
    policy = RestartPolicy(attempts=2, interval=100, delay=0, mode="fail")
    assert _starts(policy, [1, 2, 3]) == [1, 2, None]
    assert _starts(RestartPolicy(attempts=0), [1]) == [None]
    assert _starts(RestartPolicy(attempts=0, mode="delay"), [1]) == [None], "none is none"


def test_after_the_interval_they_count_anew() -> None:
    policy = RestartPolicy(attempts=1, interval=10, delay=0, mode="fail")
    assert _starts(policy, [0, 10]) == [0, 10]
    assert _starts(policy, [0, 9]) == [0, None]


def test_the_delay_doubles_up_to_the_longest() -> None:
    policy = RestartPolicy(attempts=5, interval=1000, delay=1, max_delay=4)
    assert _starts(policy, [0, 10, 20, 30, 40]) == [1, 12, 24, 34, 44]


def test_the_mode_delay_waits_for_the_end_of_the_interval_in_place_of_giving_up() -> None:
    policy = RestartPolicy(attempts=1, interval=10, delay=0, mode="delay")
    assert _starts(policy, [0, 1, 11.5]) == [0, 10, 20]


@pytest.mark.parametrize(("chance", "at"), [(0.0, 2.0), (0.5, 2.5), (1.0, 3.0)])
def test_jitter_adds_up_to_its_part_by_chance(chance: float, at: float) -> None:
    policy = RestartPolicy(delay=2, jitter=0.5)
    assert Restarts(policy, lambda: chance).after_death(0) == at
