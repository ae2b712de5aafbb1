"""Pages and faces as shipped: a real model, real pictures, two real workers and a private Redis.

The twin in Python is the same definition (``tests/unit/examples/test_pages.py``), and is run only at length.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.runs.pictures import EXAMPLE, PROSE, require_vision
from tests.servers import ROOT
from tests.servers.command import RunningCommand, start
from tests.servers.extent import LONG, at_length

PORTRAIT = "matplotlib/mpl-data/sample_data/grace_hopper.jpg"
NAMES = ["page", "text", "astronaut", "grace_hopper"] if LONG else ["grace_hopper"]
#: In the suite one of them: ``tests/unit/tasks/test_vision.py`` reads each.
PICTURES = () if LONG else ("--set", f"pages.pictures={json.dumps([PORTRAIT])}")
#: Seconds that they may take together: a model on a loaded machine.
PATIENCE = 150.0

pytestmark = pytest.mark.timeout(PATIENCE + 30)


@dataclass
class Outcome:
    """What one run left behind."""

    status: int
    printed: str
    said: str
    out: Path

    def records(self) -> dict[str, dict[str, Any]]:
        lines = (self.out / "pages.jsonl").read_text().splitlines()
        return {record["image"]: record for record in map(json.loads, lines)}


def start_in(folder: Path, *words: object) -> RunningCommand:
    """Run in a folder that is like the root of the checkout, but that takes the output."""
    folder.mkdir()
    (folder / "worker_configs").symlink_to(ROOT / "worker_configs")
    return start(*words, cwd=folder)


@pytest.fixture(scope="module")
def outcomes(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """One twin or both, run at the same time, unchanged. ``redis_url``: for its answer to a missing redis-server."""
    require_vision()
    folder = tmp_path_factory.mktemp("pages")
    commands = {
        "json": start_in(folder / "json", "-m", "celerypipe", "run", EXAMPLE / "pipeline.json", "--json", *PICTURES),
        **({"python": start_in(folder / "python", EXAMPLE / "pipeline.py")} if LONG else {}),
    }
    try:
        found = {}
        for name, command in commands.items():
            done = command.finish(PATIENCE)
            out = folder / name / "examples" / "pages" / "out"
            found[name] = Outcome(done.returncode, done.stdout, done.stderr, out)
        yield found
    finally:
        for command in commands.values():
            command.kill()


@pytest.mark.parametrize("twin", ["json", pytest.param("python", marks=at_length)])
def test_pictures_are_written_with_the_right_faces_and_words(outcomes: dict[str, Outcome], twin: str) -> None:
    from PIL import Image

    outcome = outcomes[twin]
    assert outcome.status == 0, outcome.said
    records = outcome.records()
    assert list(records) == NAMES
    assert [len(records[name]["faces"]) for name in NAMES] == ([0, 0, 1, 1] if LONG else [1])

    if LONG:
        assert [line["text"] for line in records["page"]["lines"]][: len(PROSE)] == PROSE
    assert [line["text"] for line in records["grace_hopper"]["lines"]] == ["COMO HOPPER"]

    assert sorted(path.stem for path in outcome.out.glob("*.png")) == sorted(NAMES)
    for name in NAMES:
        with Image.open(outcome.out / f"{name}.png") as picture:
            picture.load()
            # The text is written below the picture, and may be wider.
            assert picture.width >= records[name]["width"]
            assert picture.height >= records[name]["height"]


@at_length
def test_both_twins_find_the_same(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["json"].records() == outcomes["python"].records()
    assert "pages_and_faces: done" in outcomes["python"].printed
    assert "The pictures are in examples/pages/out" in outcomes["python"].printed


def test_the_report_says_what_ran_where(outcomes: dict[str, Outcome]) -> None:
    nodes = {node["name"]: node for node in json.loads(outcomes["json"].printed)["nodes"]}
    assert (nodes["text"]["queue"], nodes["faces"]["queue"]) == ("gpu", "cpu")
    assert (nodes["describe"]["received"], nodes["describe"]["sent"]) == (2 * len(NAMES), len(NAMES))
    assert nodes["pictures"]["received"] == nodes["records"]["received"] == len(NAMES)
