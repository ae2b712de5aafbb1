"""A real run, seen from Flower: a task under the node's mark, with short arguments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.servers import eventually
from tests.servers.command import celerypipe

SECRET = "payload-bytes-" * 200


def test_a_run_shows_in_flower_as_a_task_under_its_mark(
    start_worker: Callable[..., Any], redis_url: str, flower: httpx.Client, tmp_path: Path
) -> None:
    worker = start_worker("flowerrun", pool="solo")
    name = f"flowerrun.{worker.process.pid}@"

    def known() -> bool:
        workers = flower.get("/api/workers", params={"refresh": "1"}).json()
        return any(found.startswith(name) for found in workers)

    eventually(known, "the worker in Flower")

    definition = tmp_path / "pipeline.json"
    nodes = [
        {"name": "src", "type": "source", "mark": "data_streamer", "configuration": {"items": [SECRET], "rate": 0}},
        {
            "name": "there",
            "type": "proc",
            "mark": "passthrough_identity",
            "warped": True,
            "warp_configuration": {"queue": "flowerrun", "timeout": 30},
        },
        {"name": "out", "type": "sink", "mark": "json_lines", "configuration": {"path": str(tmp_path / "out.jsonl")}},
    ]
    links = [{"from": "src", "to": "there"}, {"from": "there", "to": "out"}]
    definition.write_text(json.dumps({"version": "1", "pipeline": {"name": "seen", "nodes": nodes, "links": links}}))
    done = celerypipe("run", definition, "--redis", redis_url, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.jsonl").read_text()) == SECRET
    run = json.loads(done.stdout)["run"]

    def finished() -> list[dict[str, Any]]:
        tasks = flower.get("/api/tasks", params={"taskname": "passthrough_identity"}).json().values()
        ours = [task for task in tasks if run in str(task.get("args"))]
        return ours if ours and all(task["state"] == "SUCCESS" for task in ours) else []

    for task in eventually(finished, "the run in Flower"):
        assert task["name"] == "passthrough_identity"
        assert task["worker"].startswith(name)
        assert "there" in task["args"]
        assert len(task["args"]) < 200
        assert "payload-bytes" not in json.dumps(task)
