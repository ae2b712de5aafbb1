"""A run is killed, and another one goes on from its journal: every line once."""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from celerypipe.runner.folder.journal import FILE, parse
from tests.nodes.remote import CONFIG
from tests.servers import StartWorker, eventually
from tests.servers.command import RunningCommand, begin
from tests.servers.extent import at_length

#: How many lines the source has. Some of them are the paths of gates, which hold the run up until they are there.
COUNT = 300
GATES = (100, 200)
#: How many there are where a run is killed at random moments.
COUNT_LONG = 40_000


class Place:
    """A pipeline in a folder of its own: lines through a gate into a file."""

    def __init__(self, folder: Path, warped: str = "", gates: Sequence[int] = GATES) -> None:
        self.folder = folder
        self.source = folder / "in.jsonl"
        self.out = folder / "out.jsonl"
        self.gates = {number: folder / f"gate-{number}" for number in gates}
        values = [str(self.gates[number]) if number in gates else number for number in range(COUNT)]
        self.values = values
        elsewhere = {"warped": True, "warp_configuration": {"queue": warped}} if warped else {}
        self.source.write_text("".join(f"{json.dumps(value)}\n" for value in values))
        self.pipeline: dict[str, Any] = {
            "name": "lines",
            "folder": "kept",
            "nodes": [
                node("lines", "source", "json_lines", path=str(self.source)),
                {**node("gate", "proc", "tests.nodes.remote.Gate"), **elsewhere},
                {**node("echo", "proc", "tests.nodes.remote.Echo"), **elsewhere},
                node("file", "sink", "json_lines", path=str(self.out)),
            ],
            "links": [
                {"from": "lines", "to": "gate"},
                {"from": "gate", "to": "echo"},
                {"from": "echo", "to": "file"},
            ],
        }

    @property
    def definition(self) -> Path:
        path = self.folder / "pipeline.json"
        path.write_text(json.dumps({"version": "1", "pipeline": self.pipeline}))
        return path

    def start(self, *options: str) -> RunningCommand:
        return begin("run", self.definition, "--json", *options)

    def finish(self, *options: str) -> dict[str, Any]:
        done = self.start(*options).finish()
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []

    def written(self) -> int:
        return self.out.read_bytes().count(b"\n") if self.out.exists() else 0

    def journals(self) -> list[Path]:
        return sorted((self.folder / "kept" / "journals").glob(f"*/{FILE}"))

    def noted(self) -> int:
        """How many source messages are through, as far as that is noted."""
        return sum(parse(path.read_bytes()).count for path in self.journals() if path.stat().st_size)

    def killed_at(self, count: int, *options: str) -> None:
        """Run until the gate behind so many lines, and kill it with ``-9`` once that is noted."""
        self.killed_when(lambda: self.noted() >= count, *options)
        assert len(self.lines()) == count

    def killed_when(self, condition: Callable[[], bool], *options: str) -> None:
        """Run until the condition holds, and kill it with ``-9``."""
        run = self.start(*options)
        try:
            eventually(lambda: condition() or run.process.poll() is not None, "the moment to kill the run")
            lives = run.process.poll() is None
        finally:
            run.kill()
        assert lives, run.err.read_text()

    def run_id(self) -> str:
        """The last run that wrote to the one journal there is."""
        (path,) = self.journals()
        return parse(path.read_bytes()).runs[-1]


def node(name: str, type: str, mark: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "type": type, "mark": mark, "configuration": configuration}


def test_a_run_killed_twice_goes_on_and_every_line_is_there_once(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.killed_at(100)
    place.gates[100].touch()
    first = place.run_id()
    place.killed_at(200, "--resume", first)
    second = place.run_id()
    assert first != second
    place.gates[200].touch()
    report = place.finish("--resume", first)  # the journal is that of both
    assert place.lines() == place.values
    assert report["nodes"][0]["sent"] == 100
    assert not place.journals()
    assert not list((tmp_path / "kept" / "journals").iterdir())


def test_what_was_written_but_not_noted_is_not_written_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.killed_at(100)
    (journal,) = place.journals()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b'{"through":{"lines":[[1,7]]},"following":{"lines":7}}\n' + b'{"through":{"li')
    place.out.write_bytes(place.out.read_bytes()[:-2])  # half of the last line
    for gate in place.gates.values():
        gate.touch()
    report = place.finish("--resume", place.run_id())
    assert report["nodes"][0]["sent"] == COUNT - 7
    assert place.lines() == place.values


def test_with_warped_nodes_too(start_worker: StartWorker, redis_url: str, tmp_path: Path) -> None:
    start_worker("resume", pool="solo", config=CONFIG)
    place = Place(tmp_path, warped="resume", gates=(280,))
    # The one process stands at the gate, with what is in both windows behind and before it.
    place.killed_when(lambda: place.noted() >= 150, "--redis", redis_url)
    for gate in place.gates.values():
        gate.touch()
    place.finish("--redis", redis_url, "--resume", place.run_id())
    assert place.lines() == place.values


def test_after_ctrl_c_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    place = Place(tmp_path)
    run = place.start()
    eventually(lambda: len(place.lines()) == 100, "the first lines")
    run.process.send_signal(signal.SIGINT)
    place.gates[100].touch()
    place.gates[200].touch()
    done = run.finish()
    assert json.loads(done.stdout)["status"] == "stopped", done.stderr
    through = re.search(r"(\d+) source messages are finished; to continue from there: --resume (\w+)", done.stderr)
    assert through, done.stderr
    assert int(through[1]) == len(place.lines())
    report = place.finish("--resume", through[2])
    assert report["nodes"][0]["sent"] == COUNT - int(through[1])
    assert place.lines() == place.values


def test_a_run_that_failed_goes_on_with_the_message_that_it_failed_over(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.pipeline["nodes"][1] = {**node("gate", "proc", "tests.nodes.remote.Gate"), "timeout": 0.2}
    done = place.start().finish()
    assert done.returncode == 1
    assert "gate: 0.2 s exceeded" in done.stderr
    run = place.run_id()
    place.pipeline["nodes"][1]["timeout"] = 30  # what time a node has may change
    for gate in place.gates.values():
        gate.touch()
    place.finish("--resume", run)
    assert place.lines() == place.values


def test_a_sink_that_keeps_no_record_gets_every_message_at_least_once(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.pipeline["nodes"][3] = node("file", "sink", "tests.nodes.remote.Drop", path=str(place.out))
    place.killed_when(lambda: place.noted() >= 100)
    for gate in place.gates.values():
        gate.touch()
    place.finish("--resume", place.run_id())
    assert set(place.out.read_text().splitlines()) == set(map(str, place.values))


def test_pictures_are_known_by_name(tmp_path: Path) -> None:
    import cv2

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    names = [f"{number:02d}" for number in range(20)]
    for name in names:
        cv2.imwrite(str(pictures / f"{name}.png"), np.zeros((4, 4, 3), np.uint8))
    gate = tmp_path / "gate"
    place = Place(tmp_path)
    place.pipeline["nodes"] = [
        node("lines", "source", "image_files", folder=str(pictures)),
        node("gate", "proc", "tests.nodes.here.Halt", at="10", gate=str(gate)),
        node("echo", "proc", "tests.nodes.remote.Echo"),
        node("file", "sink", "image_files", pattern="{sequence}-{name}.png"),
    ]
    place.killed_when(lambda: place.noted() > 0)
    gate.touch()
    cv2.imwrite(str(pictures / "000.png"), np.zeros((4, 4, 3), np.uint8))
    place.finish("--resume", place.run_id())
    written = sorted(path.name.partition("-")[2] for path in (tmp_path / "kept" / "file").glob("*.png"))
    assert written == sorted(f"{name}.png" for name in [*names, "000"])


@at_length
@pytest.mark.timeout(300)
@pytest.mark.parametrize("queue", ["", "resume-long"])
def test_killed_at_random_moments_under_load(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, queue: str
) -> None:
    if queue:
        start_worker(queue, pool="prefork", concurrency=2, config=CONFIG)
    options = ["--redis", redis_url] if queue else []
    place = Place(tmp_path, warped=queue)
    place.values = list(range(COUNT_LONG))
    place.source.write_text("".join(f"{value}\n" for value in place.values))
    run = ""
    for kill_at in sorted(random.Random(4).sample(range(COUNT_LONG - 1000), 8)):  # noqa: S311  # no secret
        place.killed_when(lambda at=kill_at: place.written() > at, *options, *(["--resume", run] if run else []))
        run = place.run_id()
    place.finish(*options, "--resume", run)
    assert place.lines() == place.values
