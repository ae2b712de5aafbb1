"""Names in every script go through a real worker, a run with a folder, its report, and `celerypipe status`."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from celerypipe import Pipeline
from tests.servers import StartWorker
from tests.servers.command import celerypipe

QUEUES = ["Ünïcødé", "日本", "سلام", "🚀", "a:b", "a{b}", "100%", "a@b", "[bold]", "it's"]


def test_odd_names_work_in_every_place(start_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    worker = start_worker(",".join(QUEUES), pool="solo", cwd=tmp_path, arguments=["-I", "tests.nodes.remote"])
    assert worker.presence["queues"] == QUEUES
    names = [f"{queue} node" for queue in QUEUES]
    source = {"name": "数", "type": "source", "mark": "data_streamer", "configuration": {"items": [1, 2]}}
    sink = {"name": "결과", "type": "sink", "mark": "json_lines", "configuration": {"path": "out.jsonl"}}
    there = [
        {"name": name, "type": "proc", "mark": "tests.nodes.remote.Echo", "warped": True, "timeout": 30}
        | {"warp_configuration": {"queue": queue}}
        for name, queue in zip(names, QUEUES, strict=True)
    ]
    order = ["数", *names, "결과"]
    links = [{"from": one, "to": other} for one, other in pairwise(order)]
    body = {
        "name": "مرحبا [bold]",
        "folder": "run",
        "telemetry": "时间.csv",
        "nodes": [source, *there, sink],
        "links": links,
    }
    path = tmp_path / "pipeline.json"
    path.write_text(json.dumps({"pipeline": body}))
    done = celerypipe("run", path, "--redis", redis_url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
    for name in order[1:-1]:
        assert name in done.stdout
        assert (tmp_path / "run" / name).is_dir()
    listed = json.loads(celerypipe("status", "--redis", redis_url, "--json").stdout)
    assert set(QUEUES) <= {queue["name"] for queue in listed["queues"]}
    shown = celerypipe("status", "--redis", redis_url).stdout
    assert all(queue in shown for queue in QUEUES)
    assert Pipeline.load(tmp_path / "run" / "config.json").name == body["name"]
    for kind in ("mermaid", "dot", "text"):
        assert celerypipe("graph", path, "--format", kind).returncode == 0
