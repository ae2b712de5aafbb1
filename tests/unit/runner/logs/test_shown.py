"""Lines of workers' logs where nobody says how they are shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from celerypipe.cli.screen.lines import LogDisplay
from celerypipe.message.logs import LogLine
from celerypipe.runner.logs.shown import NODES, show, texts_of


def test_lines_that_were_dropped_are_said_in_the_same_words_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = LogLine(0.0, "", host="gpubox", pid=4711, node="a", dropped=1812)
    (said,) = texts_of(line)
    assert said == "… 1,812 lines of gpubox, process 4711, were dropped here"  # as docs/logs.md has it
    terminal = io.StringIO()
    LogDisplay(Console(file=terminal)).show(line)
    monkeypatch.setattr(NODES, "propagate", False)  # pytest listens to all the others
    show(line)
    assert terminal.getvalue() == capsys.readouterr().err == f"a │ {said}\n"
