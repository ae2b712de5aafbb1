"""``celerypipe run`` of numbers without end, as a process that a test can signal, kill and cancel."""

from __future__ import annotations

import json
from pathlib import Path

from tests.servers.command import RunningCommand, begin


def endless(folder: Path, queue: str, delay: float = 0.01) -> Path:
    """A pipeline that streams numbers through a slow warped node into a file."""
    definition = {
        "version": "1",
        "plugins": [],
        "pipeline": {
            "name": "endless",
            "id": "1",
            "nodes": [
                {
                    "name": "numbers",
                    "type": "source",
                    "mark": "data_streamer",
                    "configuration": {"count": 1_000_000, "rate": 200},
                },
                {
                    "name": "there",
                    "type": "proc",
                    "mark": "tests.nodes.remote.Echo",
                    "configuration": {"delay": delay},
                    "warped": True,
                    "warp_configuration": {"queue": queue},
                },
                {
                    "name": "file",
                    "type": "sink",
                    "mark": "json_lines",
                    "configuration": {"path": str(folder / "out.jsonl")},
                },
            ],
            "links": [{"from": "numbers", "to": "there"}, {"from": "there", "to": "file"}],
        },
    }
    path = folder / "pipeline.json"
    path.write_text(json.dumps(definition))
    return path


def start_run(pipeline: Path, url: str) -> RunningCommand:
    """Start it; the report is what it prints."""
    return begin("run", pipeline, "--redis", url, "--json")


def lines(folder: Path) -> list[int]:
    """What is in the file by now."""
    out = folder / "out.jsonl"
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
