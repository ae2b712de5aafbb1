"""The dead man's switch is set for what runs, put off for what may take long, and off when nothing runs."""

from __future__ import annotations

import math
import os
import threading
import time

import pytest

from celerypipe.heartbeat.deadlines import Deadlines
from celerypipe.worker.activation.deadman import LONGEST, DeadMan

GRACE = 2.0


@pytest.fixture
def table() -> Deadlines:
    table = Deadlines.make()
    if table is None:
        pytest.skip("this system has no memory that two processes open by a descriptor")
    return table


@pytest.fixture
def switch(table: Deadlines) -> DeadMan:
    return DeadMan(table.line(os.getpid(), GRACE))


def missed_in(table: Deadlines, seconds: float) -> bool:
    """Would the monitor find in so many seconds that this process has missed its deadline?"""
    return table.missed(os.getpid(), time.monotonic() + seconds) is not None


def elsewhere(switch: DeadMan, timeout: float) -> None:
    """Another thread hands a message over, and has not got its result."""
    thread = threading.Thread(target=switch.begin, args=(time.monotonic() + timeout,))
    thread.start()
    thread.join()


def test_it_goes_off_after_timeout_and_grace(table: Deadlines, switch: DeadMan) -> None:
    switch.begin(time.monotonic() + 10.0)
    assert not missed_in(table, 10.0 + GRACE - 1.0)
    assert missed_in(table, 10.0 + GRACE + 1.0)
    assert not Deadlines(table.fd).missed(os.getpid() + 1, time.monotonic() + 100.0)
    assert Deadlines(table.fd).missed(os.getpid(), time.monotonic() + 100.0) is not None


def test_it_is_off_when_nothing_is_at_work(table: Deadlines, switch: DeadMan) -> None:
    switch.begin(time.monotonic() + 0.5)
    switch.end()
    assert not missed_in(table, 3600.0)


def test_it_is_put_off_while_python_runs(table: Deadlines, switch: DeadMan) -> None:
    switch.begin(time.monotonic())
    switch.renew()
    assert not missed_in(table, GRACE - 1.0)
    assert missed_in(table, GRACE + 1.0)


def test_who_has_no_limit_sets_it_for_nobody_and_puts_it_off_for_all(table: Deadlines, switch: DeadMan) -> None:
    elsewhere(switch, math.inf)
    assert not missed_in(table, 3600.0)
    switch.begin(time.monotonic() + 0.5)
    assert not missed_in(table, LONGEST)
    assert missed_in(table, LONGEST + GRACE + 1.0)


def test_the_most_patient_of_those_at_work_decides(table: Deadlines, switch: DeadMan) -> None:
    elsewhere(switch, 30.0)
    switch.begin(time.monotonic() + 0.5)
    assert not missed_in(table, 30.0 + GRACE - 1.0)
    switch.end()
    assert missed_in(table, 30.0 + GRACE + 1.0)


def test_what_is_prepared_may_take_its_time(table: Deadlines, switch: DeadMan) -> None:
    with switch.patient():
        assert not missed_in(table, 3600.0)


def test_without_a_deadline_nothing_is_set() -> None:
    switch = DeadMan(None)
    switch.begin(time.monotonic() + 0.5)
    switch.renew()
    switch.end()


def test_the_line_of_a_process_that_is_gone_is_given_again(table: Deadlines) -> None:
    assert table.line(os.getpid() + 4096 * 1000, GRACE) is not None  # no process has that number
    assert table.line(os.getpid(), GRACE) is not None
    assert table.missed(os.getpid() + 4096 * 1000, time.monotonic()) is None
