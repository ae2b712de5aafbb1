"""How far a run is, in one line, and above the table of a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from celerypipe.cli.screen import progress as module
from celerypipe.cli.screen.progress import Pace, line, progress, view
from celerypipe.runner.report import NodeReport, Quantiles, Report

FAILING = NodeReport("n", "", "", 5, 3, {"failed": 3}, 1, 2, 0, 0, 0, 0, None, None, None)
REPORT = Report("ab12", "numbers", "running", 10.0, (FAILING,), through=340, total=1000)


def test_a_line_says_what_went_wrong_and_how_long_it_will_take() -> None:
    said = "numbers: running for 10.0 s, 2 failed, 340 of 1,000 messages through, 34/s, 20 s left"
    assert line(REPORT, 34.0) == said
    assert (
        line(replace(REPORT, nodes=(), total=None), 0.5) == "numbers: running for 10.0 s, 340 messages through, 0.5/s"
    )
    assert line(replace(REPORT, nodes=(), through=0), 0.0) == "numbers: running for 10.0 s, 0 of 1,000 messages through"


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    pace = Pace()
    assert pace.rate == 0.0
    pace.see(replace(REPORT, seconds=2.0, through=10))
    assert pace.rate == 5.0
    for second in range(3, 200):
        pace.see(replace(REPORT, seconds=float(second), through=second * (1 if second < 100 else 20)))
    assert pace.rate == 20.0


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_bar_fits_beside_what_it_says(width: int, encoding: str) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=file, width=width).print(view(REPORT, 34.0))
    file.flush()
    lines = raw.getvalue().decode(encoding).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].rstrip().endswith(" 340 of 1,000 messages through, 34/s, 20 s left")
    assert set(lines[0].partition(" ")[0]) <= set("━╸╺-")
    assert lines[1].rstrip() == "numbers: running for 10.0 s"


def test_without_a_terminal_a_line_is_written_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, width=60)
    with progress(console, quiet=False) as tell:
        assert tell is not None
        tell(replace(REPORT, seconds=0.0, through=0))
        assert file.getvalue() == ""  # it began a moment ago
        monkeypatch.setattr(module, "OFTEN", 0.0)
        tell(REPORT)
        tell(replace(REPORT, seconds=61.0))
    assert file.getvalue() == f"{line(REPORT, 34.0)}\n"
    with progress(console, quiet=True) as tell:
        assert tell is None


@pytest.mark.parametrize(("width", "said"), [(60, False), (140, True)])
def test_what_the_times_are_is_said_where_times_are_shown(width: int, said: bool) -> None:
    times = Quantiles(0.001, 0.002)
    node = replace(FAILING, name="a_node_with_a_long_name", queue="gpu", running=times, waiting=times, transfer=times)
    text = replace(REPORT, nodes=(node,)).table(width)
    assert ("times are p50 / p99" in text) == said == ("running" in text.splitlines()[1])


def test_a_node_that_warms_up_is_no_standstill() -> None:
    starting = replace(REPORT, nodes=(replace(FAILING, failed={}, retried=0, warming=True),), through=0)
    assert line(starting, 0.0).endswith("0 of 1,000 messages through, 1 node warming up")
