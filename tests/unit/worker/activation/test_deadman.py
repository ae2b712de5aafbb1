"""The dead man's switch is set for what runs, put off for what may take long, and off when nothing runs."""

from __future__ import annotations

import faulthandler
import threading
from collections.abc import Iterator

import pytest

from celerypipe.worker.activation.deadman import LONGEST, SLACK, DeadMan

GRACE = 2.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """For how many seconds the clock in C was set, each time; 0: it was stopped."""
    times: list[float] = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **_: times.append(round(seconds, 1)))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: times.append(0.0))
    return times


def elsewhere(switch: DeadMan, timeout: float | None) -> None:
    """Another thread hands a message over, and has not got its result."""
    thread = threading.Thread(target=switch.begin, args=(timeout,))
    thread.start()
    thread.join()


def test_it_is_set_for_a_timeout_and_kept_while_it_fits(clock: list[float]) -> None:
    switch = DeadMan(GRACE)
    for _ in range(10):
        switch.begin(0.5)
        switch.end()
    assert clock == [0.5 + GRACE + SLACK]


def test_it_is_put_off_while_python_runs_and_stopped_when_nothing_is_at_work(clock: list[float]) -> None:
    switch = DeadMan(GRACE)
    switch.begin(0.5)
    switch.renew()
    switch.end()
    switch.renew()
    switch.renew()
    assert clock == [0.5 + GRACE + SLACK, 0.5 + GRACE + SLACK, 0.0]


def test_who_has_no_limit_sets_it_for_nobody_and_puts_it_off_for_all(clock: list[float]) -> None:
    switch = DeadMan(GRACE)
    elsewhere(switch, None)
    switch.renew()
    assert clock == []
    switch.begin(0.5)
    switch.renew()
    assert clock == [LONGEST + GRACE + SLACK] * 2


def test_what_is_left_of_a_patient_node_is_not_kept_for_one_with_little_time(clock: list[float]) -> None:
    switch = DeadMan(GRACE)
    for timeout in (30.0, 30.0, 0.5, 0.7, 30.0):
        switch.begin(timeout)
        switch.end()
    assert clock == [30.0 + GRACE + SLACK, 0.5 + GRACE + SLACK, 30.0 + GRACE + SLACK]


def test_what_is_left_is_stopped_for_one_without_a_limit_that_nobody_waits_for(clock: list[float]) -> None:
    switch = DeadMan(GRACE)
    switch.begin(0.5)
    switch.end()
    with switch.patient():
        switch.renew()
    switch.renew()
    assert clock == [0.5 + GRACE + SLACK, 0.0]


def test_without_grace_it_is_never_set(clock: list[float]) -> None:
    switch = DeadMan(None)
    switch.begin(0.5)
    switch.renew()
    switch.end()
    assert clock == []


def test_the_most_patient_counts(clock: list[float]) -> None:
    switch = DeadMan(GRACE)
    switch.begin(0.5)
    elsewhere(switch, 30.0)
    switch.renew()
    assert clock == [0.5 + GRACE + SLACK, 30.0 + GRACE + SLACK, 30.0 + GRACE + SLACK]
