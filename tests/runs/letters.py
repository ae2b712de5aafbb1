"""Runs of the command line that leave dead letters, and what ``celerypipe dead`` says of those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from celerypipe.cli import main


def definition(folder: Path, bad: list[int], **node: Any) -> Path:
    """Numbers through a picky node into a file."""
    nodes = [
        {"name": "numbers", "type": "source", "mark": "data_streamer", "configuration": {"count": 6, "rate": 0}},
        {
            "name": "pick",
            "type": "proc",
            "mark": "tests.nodes.remote.Picky",
            "configuration": {"bad": bad},
            "on_error": "dead_letter",
            **node,
        },
        {"name": "file", "type": "sink", "mark": "json_lines", "configuration": {"path": str(folder / "out.jsonl")}},
    ]
    links = [{"from": "numbers", "to": "pick"}, {"from": "pick", "to": "file"}]
    path = folder / "pipeline.json"
    body = {"name": "picky", "folder": "run", "nodes": nodes, "links": links}
    path.write_text(json.dumps({"version": "1", "pipeline": body}))
    return path


def dead(*words: object, **options: Any) -> Result:
    """``celerypipe dead``, in this process."""
    return CliRunner().invoke(main, ["dead", *map(str, words)], **options)


def listed(place: Path) -> list[dict[str, Any]]:
    """The dead letters of a pipeline, or of a folder."""
    done = dead("list", place, "--json")
    assert done.exit_code == 0, done.output
    letters: list[dict[str, Any]] = json.loads(done.stdout)["letters"]
    return letters
