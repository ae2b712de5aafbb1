"""What ``on_error`` and ``retries`` of a source mean: one message that cannot be made is given up, not the rest."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from celerypipe import NodeDefinition, NodeFailed, NodeTimeout, Pipeline, Runner
from celerypipe.cli import main
from celerypipe.errors import NodeError
from celerypipe.runner.folder.letters import PLACE, DeadLetters
from tests.nodes import here

MISSING = "the source cannot continue after that: messages that it had not sent are missing"


class Reading:
    """A run of one source into a file, with what it said."""

    def __init__(self, folder: Path, mark: Any, resume: str | None = None, **source: Any) -> None:
        self.out = folder / "out.jsonl"
        node = NodeDefinition(name="in", type="source", mark=mark, **source)
        file = NodeDefinition(name="out", type="sink", mark="json_lines", configuration={"path": str(self.out)})
        self.pipeline = Pipeline(name="p", nodes=[node, file], links=[("in", "out")], folder=folder / "kept")
        self.letters = DeadLetters(folder / "kept" / PLACE)
        self.said: list[str] = []
        self.runner = Runner(local=True, on_event=self.said.append)
        self.error: NodeError | None = None
        try:
            self.report = self.runner.run(self.pipeline, resume=resume)
        except NodeError as error:
            self.error, self.report = error, error.report
        self.source = self.report["in"]

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.read_text().splitlines()]


BUILT_IN = {
    "json_lines": ("lines.jsonl:3: not JSON", [1, 2, 4, 5]),
    "image_files": ("b.jpg: no picture that Pillow can read", ["a", "c", "e"]),
}


def files(folder: Path, mark: str) -> dict[str, Any]:
    """What a built-in source reads: something that is broken, with others before and after it."""
    if mark == "json_lines":
        (folder / "lines.jsonl").write_text('1\n2\n{"broken\n4\n\n5\n')
        return {"path": str(folder / "lines.jsonl")}
    cv2 = pytest.importorskip("cv2", reason="needs pip install 'celerypipe[vision]'")
    for name in "ace":
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((2, 2, 3), np.uint8))
    (folder / "b.jpg").write_bytes(b"")
    return {"folder": str(folder)}


@pytest.mark.parametrize("mark", BUILT_IN)
@pytest.mark.parametrize("on_error", ["skip", "dead_letter", "stop"])
def test_one_that_cannot_be_read_costs_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mark: str, on_error: str
) -> None:
    text, rest = BUILT_IN[mark]
    with caplog.at_level(logging.WARNING, "celerypipe"):
        found = Reading(tmp_path, mark, configuration=files(tmp_path, mark), on_error=on_error)
    assert found.source.failed == {"failed": 1}
    if on_error == "stop":
        assert text in str(found.error)
        assert str(found.error).endswith('; with "on_error": "skip" in this node the run goes on without it')
        return
    assert found.report.status == "done"
    assert found.source.sent == len(rest)
    assert (found.lines if mark == "json_lines" else len(found.lines)) == (rest if mark == "json_lines" else len(rest))
    assert (found.source.skipped, found.source.dead) == ((1, 0) if on_error == "skip" else (0, 1))
    assert text in caplog.text
    assert "on_error" not in caplog.text, "it says so already"
    letters = found.letters.find().letters
    assert len(letters) == found.source.dead
    if letters:
        assert text in letters[0].text
        assert letters[0].not_kept == "its source could not make it; repair what that reads, and run the pipeline again"
        assert found.runner.replay(found.pipeline).status == "done"
        assert f"dead letter {letters[0].name} has no message, and is kept: {letters[0].not_kept}" in found.said
        shown = CliRunner().invoke(main, ["dead", "show", str(tmp_path / "kept"), letters[0].name])
        assert shown.exit_code == 0, shown.output
        assert "repair what that reads" in shown.output


def test_it_is_tried_again_before_it_is_given_up(tmp_path: Path) -> None:
    configuration = {"items": [1, 2, 3, 4], "bad": {2: 2, 3: None}}
    options = {"retries": 2, "warp_configuration": {"backoff": 0.001}}
    found = Reading(tmp_path, here.Tried, configuration=configuration, on_error="skip", **options)
    assert found.lines == [1, 2, 4]
    assert (found.source.failed, found.source.retried, found.source.skipped) == ({"failed": 5}, 4, 1)


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_one_that_hangs_costs_itself_too(tmp_path: Path, on_error: str) -> None:
    configuration = {"items": [1, 2, 3, 4], "bad": {}, "slow": {2: 1, 3: 9}}
    options = {"retries": 1, "timeout": 0.2, "warp_configuration": {"backoff": 0.001}}
    found = Reading(tmp_path, here.Tried, configuration=configuration, on_error=on_error, **options)
    assert (found.source.failed, found.source.retried) == ({"timeout": 3}, 2)
    assert found.lines == ([1, 2, 4] if on_error == "skip" else [1, 2])
    assert isinstance(found.error, NodeTimeout if on_error == "stop" else type(None))
    assert found.source.skipped == (on_error == "skip")


def test_one_that_hangs_again_and_again_ends_the_run(tmp_path: Path) -> None:
    configuration = {"items": [*range(9)], "bad": {}, "slow": dict.fromkeys(range(1, 9), 9)}
    found = Reading(tmp_path, here.Tried, configuration=configuration, on_error="skip", timeout=0.05)
    assert isinstance(found.error, NodeTimeout)
    assert "in: 4 of its threads hang, and nothing can end a thread; a source runs here" in str(found.error)
    assert (found.lines, found.source.skipped) == ([0], 4)


def test_what_is_no_message_costs_itself(tmp_path: Path) -> None:
    found = Reading(tmp_path, here.Tried, configuration={"items": [1, ["odd"], 2], "bad": {}}, on_error="skip")
    assert (found.lines, found.source.skipped, found.error) == ([1, 2], 1, None)


def test_what_cannot_be_sent_costs_itself(tmp_path: Path) -> None:
    found = Reading(tmp_path, here.Unsent, on_error="dead_letter")
    assert (found.lines, found.error, found.source.failed) == ([0, 2, 4], None, {"failed": 2})
    assert [letter.text for letter in found.letters.find().letters] == [
        "in: it is nested too deep, or holds itself; flatten it",
        "in: KeyError: 'nowhere'",
    ]


@pytest.mark.parametrize("on_error", ["stop", "skip", "dead_letter"])
@pytest.mark.parametrize(
    ("mark", "configuration", "rest", "why"),
    [
        (here.Severed, {}, [0, 1, 2], "in: OSError: the line is cut"),
        (here.Tried, {"items": [7, 8], "bad": {}, "items_end": True}, [7, 8], "in: OSError: the disk is gone"),
        (here.Numbers, {"hang_after": 2}, [0, 1], "in: 0.3 s exceeded"),
    ],
)
def test_a_source_that_cannot_go_on_fails_the_run_once_all_that_it_sent_is_out(
    tmp_path: Path, on_error: str, mark: type, configuration: dict[str, Any], rest: list[int], why: str
) -> None:
    found = Reading(tmp_path, mark, configuration=configuration, on_error=on_error, timeout=0.3)
    assert isinstance(found.error, NodeTimeout if mark is here.Numbers else NodeFailed)
    assert found.report.status == "failed"
    if on_error == "stop":
        assert MISSING not in str(found.error)
        return
    assert str(found.error).startswith(why)
    assert str(found.error).endswith(MISSING)
    assert str(found.error) in found.said
    assert found.lines == rest, "what came before it"


def test_a_run_that_was_cut_short_can_go_on(tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text("".join(f"{number}\n" for number in range(20)))
    configuration = {"path": str(tmp_path / "lines.jsonl"), "gate": str(tmp_path / "gate")}
    first = Reading(tmp_path, here.OnADisk, configuration=configuration, on_error="skip")
    assert first.lines == list(range(10))
    assert f"10 source messages are finished; to continue from there: --resume {first.report.run}" in first.said
    (tmp_path / "gate").touch()
    second = Reading(tmp_path, here.OnADisk, first.report.run, configuration=configuration, on_error="skip")
    assert (second.lines, second.error, second.source.sent) == (list(range(20)), None, 10)
