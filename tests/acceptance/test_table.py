"""The table of a run, as terminals of several widths show it while the run goes on, and at its end."""

from __future__ import annotations

import json
import re

import pytest

from tests.servers import PATIENCE
from tests.servers.terminal import Terminal

#: How wide each terminal is, and in which encoding it writes.
TERMINALS = [(60, "utf-8"), (80, "utf-8"), (140, "utf-8"), (80, "ascii")]
NAME = "detect_people_and_vehicles"
#: What begins the next picture of the table, over the last one.
AGAIN = re.compile(r"(\r?\x1b\[(2K|1A))+")
#: What moves the cursor or clears a line, and what colours.
STEERING = re.compile(r"\x1b\[[0-9;?]*[A-HJKSThl]|\r")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], str]:
    """What each terminal got to see of the same run; they run at the same time."""
    folder = tmp_path_factory.mktemp("table")
    nodes = [
        {"name": "src", "type": "source", "mark": "data_streamer"},
        {"name": NAME, "type": "proc", "mark": "tests.nodes.remote.Nap", "on_error": "skip"},
    ]
    # A text cannot be slept for.
    nodes[0]["configuration"] = {"items": [0.02] * 30 + ["bad"] + [0.02] * 30, "rate": 0}  # type: ignore[assignment]
    path = folder / "pipeline.json"
    nodes.append({"name": "out", "type": "sink", "mark": "tests.nodes.remote.Drop"})
    nodes[2]["configuration"] = {"path": str(folder / "out")}  # type: ignore[assignment]
    links = [{"from": "src", "to": NAME}, {"from": NAME, "to": "out"}]
    pipeline = {"name": "people", "nodes": nodes, "links": links}
    path.write_text(json.dumps({"version": "1", "pipeline": pipeline}))
    started = []
    for width, encoding in TERMINALS:
        terminal = Terminal(width)
        process = terminal.start("-m", "celerypipe", "run", path, PYTHONIOENCODING=encoding, TERM="xterm", COLUMNS="")
        started.append((terminal, process))
    assert [process.wait(PATIENCE) for _, process in started] == [0] * len(started)
    for terminal, _ in started:
        terminal.close()
    return {each: terminal.text for each, (terminal, _) in zip(TERMINALS, started, strict=True)}


@pytest.mark.parametrize("terminal", TERMINALS)
def test_it_says_how_far_the_run_is_and_what_failed(
    shown: dict[tuple[int, str], str], terminal: tuple[int, str]
) -> None:
    text = COLOUR.sub("", STEERING.sub("", AGAIN.sub("\n", shown[terminal])))
    lines = [line.rstrip() for line in text.split("\n") if "bad" not in line and "skipped:" not in line]
    assert max(map(len, lines)) <= terminal[0]
    assert any(re.fullmatch(r"people: running for \d+\.\d s", line) for line in lines)
    assert any(re.search(r"^[━╸╺ -]{8,} \d+ of 61 messages through(, \d+/s, \d+ s left)?$", line) for line in lines)
    assert sum("done in" in line for line in lines) == 1
    end = lines[lines.index(next(line for line in lines if line.startswith("people: done in"))) :]
    row = next(line for line in end if line.startswith(NAME))
    assert re.search(r"1( failed)? \|? *1 \|? *61 \|? *60", row.replace("|", " "))
    assert end[-2] == "1 message skipped"
    assert re.search(rf"{NAME}: message \S+ skipped", " ".join(text.split()))


def test_failures_are_red(shown: dict[tuple[int, str], str]) -> None:
    assert re.search(r"\x1b\[1;31m1 failed\x1b\[0m", shown[80, "utf-8"])
