"""A report as people read it: on any width, in any encoding, and in one line."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from celerypipe.runner.report import NodeReport, Quantiles, Report

BLANK = NodeReport("", "", "", 0, 0, {}, 0, 0, 0, 0, 0, 0, None, None, None)
CAMERA = replace(BLANK, name="camera_north_entrance", sent=1200)
DETECT = replace(
    BLANK,
    name="detect_people_and_vehicles",
    queue="gpu",
    received=1200,
    sent=1100,
    failed={"failed": 90, "timeout": 10},
    skipped=100,
    waiting=Quantiles(0.3, 0.5),
    running=Quantiles(0.00005, 0.02),
    transfer=Quantiles(0.001, 0.002),
    warmup=9.5,
)
OUT = replace(BLANK, name="out", received=1100, running=Quantiles(0.00005, 0.02))
REPORT = Report("ab12", "numbers", "done", 4.25, (CAMERA, DETECT, OUT), through=1200, total=1200)


def printed(report: Report, width: int, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width).print(report)
    file.flush()
    return [line.rstrip() for line in raw.getvalue().decode(encoding).splitlines()]


def test_on_60_columns_names_failures_and_counts_are_whole() -> None:
    lines = printed(REPORT, 60)
    assert max(map(len, lines)) <= 60
    assert lines[0] == "numbers: done in 4.25 s"
    assert lines[1].split() == ["node", "failed", "given", "up", "in", "out"]
    assert lines[3].split() == ["camera_north_entrance", "0", "1200"]
    assert lines[4].split() == ["detect_people_and_vehicles", "100", "100", "1200", "1100"]
    assert lines[-1] == "100 messages skipped"


def test_on_80_columns_kinds_of_failure_come_before_times() -> None:
    lines = printed(REPORT, 80)
    assert max(map(len, lines)) <= 80
    assert "90 failed, 10 timeout" in lines[4]
    assert lines[1].split() == ["node", "failed", "given", "up", "in", "out", "queue"]


def test_on_140_columns_times_are_there_too() -> None:
    lines = printed(REPORT, 140)
    assert max(map(len, lines)) <= 140
    assert lines[1].split() == ["node", "failed", "given", "up", "in", "out", "queue", "warm-up", "running", "waiting"]
    assert "9.50 s" in lines[4]
    assert "50 µs / 20.0 ms" in lines[4]


def test_a_name_that_is_too_long_goes_on_below() -> None:
    long = replace(DETECT, name="a" * 50 + "b" * 30)
    lines = printed(replace(REPORT, nodes=(long,)), 60)
    assert max(map(len, lines)) <= 60
    text = "".join(line.split()[0] for line in lines[3:] if set(line.split()[0]) <= {"a", "b"})
    assert text == long.name
    assert "100  " in lines[3]


@pytest.mark.parametrize("width", range(16, 60, 3))
def test_where_counts_have_no_room_they_are_left_out_and_never_cut(width: int) -> None:
    lines = printed(replace(REPORT, nodes=(replace(DETECT, name="a" * 50),)), width)
    assert max(map(len, lines)) <= width
    (place,) = [number for number, line in enumerate(lines) if line.startswith("node")]
    assert "node failed given up in out".startswith(" ".join(lines[place].split()))
    shown = lines[place + 2].split()[1:]
    assert shown == ["100", "100", "1200", "1100"][: len(shown)]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_an_encoding_without_greek_letters_shows_the_same(width: int) -> None:
    lines = printed(REPORT, width, "ascii")
    assert max(map(len, lines)) <= width
    assert any(line.startswith("detect_people_and_vehicles") for line in lines)
    assert lines[-1] == "100 messages skipped"
    if width == 140:
        assert any("50 us / 20.0 ms" in line for line in lines)


@pytest.mark.parametrize(
    ("failed", "retried", "cell"),
    [
        ({"failed": 1}, 1, "1 retried"),
        ({"failed": 3}, 2, "1 failed, 2 retried"),
        ({"failed": 2, "timeout": 1}, 1, "2 failed, 1 timeout; 1 of them retried"),
        ({"timeout": 1}, 0, "1 timeout"),
    ],
)
def test_what_was_tried_again_is_not_shown_as_if_it_had_failed(failed: dict[str, int], retried: int, cell: str) -> None:
    report = replace(REPORT, nodes=(replace(BLANK, name="n", failed=failed, retried=retried),))
    assert re.fullmatch(rf"n +{re.escape(cell)} +0  +0", printed(report, 120)[3])


def test_while_it_goes_on_it_says_so() -> None:
    going = replace(REPORT, status="running", seconds=12.34, nodes=(replace(DETECT, unfinished=23),))
    assert going.headline == "running for 12.3 s"
    assert "at work" in printed(going, 140)[1]
    assert "unfinished" not in going.losses
    assert replace(going, status="stopping").headline == "finishing 23 messages, after 12.3 s"


def test_what_it_left_is_shown_once_it_is_over() -> None:
    left = replace(REPORT, status="failed", nodes=(replace(DETECT, skipped=0, dead=2, unfinished=3),))
    assert "unfinished" in printed(left, 140)[1]
    assert left.losses == "2 messages kept as dead letters, 3 messages unfinished"


def test_its_repr_is_one_line() -> None:
    assert repr(REPORT) == "<Report of 'numbers', run ab12: done in 4.25 s>"
