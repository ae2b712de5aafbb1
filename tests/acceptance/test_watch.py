"""``celerypipe run --watch``: files are edited while it goes on, here and on its worker, and it ends as any other."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.servers import eventually
from tests.servers.command import begin

NODES = """
from celerypipe import node
from watched_here.words import WORD

@node
def near(value):
    return f"near {WORD}"

@node(queue="far")
def far(value):
    return f"{value}, far {WORD}"
"""


def test_nodes_here_and_on_a_worker_get_edited_code_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    package = tmp_path / "watched_here"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nodes.py").write_text(NODES)
    words = package / "words.py"
    words.write_text('WORD = "one"\n')
    (tmp_path / "worker_configs").mkdir()
    (tmp_path / "worker_configs" / "far.toml").write_text('worker_pool = "solo"\n')
    nodes = [
        {"name": "numbers", "type": "source", "mark": "data_streamer", "configuration": {"count": 10**6, "rate": 20}},
        {"name": "near", "type": "proc", "mark": "watched_here.nodes.near"},
        {"name": "far", "type": "proc", "mark": "watched_here.nodes.far", "warped": True},
        {"name": "out", "type": "sink", "mark": "json_lines", "configuration": {"path": "out.jsonl"}},
    ]
    nodes[2]["warp_configuration"] = {"queue": "far", "on_no_worker": "fail"}
    links = [{"from": a, "to": b} for a, b in (("numbers", "near"), ("near", "far"), ("far", "out"))]
    pipeline = tmp_path / "pipeline.json"
    pipeline.write_text(json.dumps({"pipeline": {"name": "watched", "nodes": nodes, "links": links}}))
    out = tmp_path / "out.jsonl"

    def seen() -> list[str]:
        return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    run = begin("run", "pipeline.json", "--watch", cwd=tmp_path)
    try:
        eventually(lambda: "near one, far one" in seen(), "a result")
        words.write_text("WORD = (\n")
        eventually(
            lambda: run.err.read_text().count("words.py:1: SyntaxError: '(' was never closed") == 2, "two errors"
        )
        count = len(seen())
        eventually(lambda: len(seen()) > count, "more results")
        words.write_text('WORD = "two"\n')
        eventually(lambda: "near two, far two" in seen(), f"the edited code; {run.err.read_text()}")
        run.process.send_signal(signal.SIGINT)
        ended = run.finish()
    finally:
        run.kill()
    assert ended.returncode == 130, ended.stderr
    assert set(seen()) <= {f"near {near}, far {far}" for near in ("one", "two") for far in ("one", "two")}
    said = [line for line in ended.stderr.splitlines() if "changed: " in line]
    assert sorted(line[line.index("watched_here") :] for line in said) == [
        "watched_here/words.py changed: node near is loaded anew",
        "watched_here/words.py changed: worker far restarts",
    ]
    assert "no live worker" not in ended.stderr
    assert "older" not in ended.stderr
