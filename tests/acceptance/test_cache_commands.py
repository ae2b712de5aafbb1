"""``celerypipe cache`` and what ``celerypipe run`` says of it, as a user has them: real processes, a real Redis."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from celerypipe.cli import main
from tests.servers import RedisServer, launch_worker
from tests.servers.command import celerypipe

NODES = """
from celerypipe import Message, Proc

class Shift(Proc):
    cache_meta = ("unit",)

    def __init__(self, threshold: float = 0.5, key: str = "", diary: str = "diary") -> None:
        self.threshold = threshold

    def update(self, message: Message) -> Message:
        with open("diary", "a") as file:
            file.write(f"{message.payload}\\n")
        if message.payload == 13:
            raise ValueError("13 brings bad luck")
        return message.with_payload(message.payload + self.threshold)
"""


def definition(folder: Path, **node: Any) -> Path:
    """Numbers through a node with a cache into a file."""
    (folder / "shifts.py").write_text(NODES)
    shift = {"name": "shift", "type": "proc", "mark": "shifts.Shift", "cache": True, **node}
    nodes = [
        {"name": "numbers", "type": "source", "mark": "data_streamer", "configuration": {"count": 10, "rate": 0}},
        shift,
        {"name": "out", "type": "sink", "mark": "json_lines", "configuration": {"path": "out.jsonl"}},
    ]
    links = [{"from": "numbers", "to": "shift"}, {"from": "shift", "to": "out"}]
    path = folder / "shift.json"
    path.write_text(json.dumps({"version": "1", "pipeline": {"name": "shift", "nodes": nodes, "links": links}}))
    return path


class Desk:
    """A folder to work in, and a Redis."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = {"CELERYPIPE_REDIS_URL": url}

    def celerypipe(self, *words: object, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = celerypipe(*words, cwd=self.folder, **{**self.environment, **variables})
        assert done.returncode == status, (done.stdout, done.stderr)
        return done

    def cache(self, *words: object, status: int = 0, **variables: str) -> Result:
        """``celerypipe cache``, in this process: starting one takes longer than what it does."""
        done = CliRunner().invoke(main, ["cache", *map(str, words)], env={**self.environment, **variables})
        assert done.exit_code == status, done.output
        return done

    def run(self, *words: object, **variables: str) -> dict[str, Any]:
        """The report of a run."""
        report: dict[str, Any] = json.loads(self.celerypipe("run", "shift.json", "--json", *words, **variables).stdout)
        return report

    def figures(self, *words: object, **variables: str) -> tuple[int, int]:
        """Hits and misses of the node in a run."""
        node = next(each for each in self.run(*words, **variables)["nodes"] if each["name"] == "shift")
        return node["hits"], node["misses"]

    @property
    def computed(self) -> int:
        diary = self.folder / "diary"
        return len(diary.read_text().splitlines()) if diary.exists() else 0


@pytest.fixture
def desk(tmp_path: Path, private_redis: RedisServer) -> Desk:
    """An empty folder, and a Redis of its own."""
    return Desk(tmp_path, private_redis.url)


def test_a_run_tells_what_the_cache_was_good_for_and_options_overrule_it(desk: Desk) -> None:
    definition(desk.folder)
    assert desk.figures() == (0, 10)
    assert desk.figures() == (10, 0)
    table = desk.celerypipe("run", "shift.json").stdout
    assert "10 (100%)" in table
    assert "10 results came from the result cache: " in table
    assert "celerypipe cache explain" not in table
    assert desk.figures("--no-cache") == (0, 0)
    assert desk.figures(CELERYPIPE_CACHE="no") == (0, 0)
    assert desk.computed == 30
    assert "celerypipe cache explain" in desk.celerypipe("run", "shift.json", "--refresh", "shift").stdout
    # A command that is typed later, without --redis, would not find it there.
    named = ("--redis", desk.environment["CELERYPIPE_REDIS_URL"])
    there = desk.celerypipe("run", "shift.json", "--refresh", "shift", *named, CELERYPIPE_REDIS_URL="")
    assert "celerypipe cache explain" not in there.stdout
    wrong = desk.celerypipe("run", "shift.json", "--refresh", "shft", status=2)
    assert "there is no node 'shft' to refresh; did you mean 'shift'?; nodes with a cache: shift" in wrong.stderr
    assert (desk.folder / "out.jsonl").read_text().splitlines()[:2] == ["0.5", "1.5"]


def test_explain_names_what_differs(desk: Desk) -> None:
    definition(desk.folder, configuration={"threshold": 0.6, "key": "$JT_ENV_KEY"})
    desk.run(KEY="secret")
    definition(desk.folder, configuration={"key": "$JT_ENV_KEY"})
    run = desk.run(KEY="secret")["run"]
    said = desk.cache("explain", run, "shift", 3).stdout
    assert "the configuration: threshold 0.5, was 0.6" in said
    (desk.folder / "shifts.py").write_text(NODES.replace("+ self", "- self"))
    os.utime(desk.folder / "shifts.py", (1, 1))  # so that it is older than the class that is made of it, for sure
    run = desk.run(KEY="secret")["run"]
    said = desk.cache("explain", run, "shift", 3).stdout
    assert "the code: source " in said
    assert "threshold" not in said
    listed = desk.cache("ls", "--json").stdout
    assert "secret" not in listed
    wrong = desk.cache("explain", run, "shfit", 3, status=2)
    assert "did you mean 'shift'" in wrong.stderr


def test_what_is_kept_is_listed_counted_and_forgotten(desk: Desk) -> None:
    definition(desk.folder)
    assert desk.cache("ls").stdout == "the cache is empty\n"
    desk.run()
    desk.run()
    listed = json.loads(desk.cache("ls", "shifts.*", "--json", "--limit", 4).stdout)
    assert len(listed) == 4
    assert {each["asked"]["mark"] for each in listed} == {"shifts.Shift"}
    table = desk.cache("ls").stdout
    assert "shifts.Shift" in table
    assert "threshold=0.5" in table
    stats = json.loads(desk.cache("stats", "--json").stdout)
    assert (stats["entries"], stats["hits"], stats["misses"]) == (10, 10, 10)
    assert "kept:    10 results" in desk.cache("stats").stdout
    assert "name the results to delete" in desk.cache("rm", status=2).stderr
    desk.cache("rm", "shifts.*", status=1)  # it asks, and nobody answers
    forgotten = desk.cache("rm", listed[0]["fingerprint"], "--yes", CELERYPIPE_CACHE_URL="file:///behind")
    assert "deleted 1 result" in forgotten.stdout
    assert "the copies in file:///behind are still there" in forgotten.stderr
    url = desk.environment["CELERYPIPE_REDIS_URL"]
    elsewhere = {"CELERYPIPE_CACHE_URL": url.replace("db=0", "db=3")}
    assert "the cache is empty" in desk.cache("ls", **elsewhere).stdout
    assert "shifts.Shift" in desk.cache("ls", "--redis", url, **elsewhere).stdout
    assert desk.figures() == (9, 1)
    assert json.loads(desk.cache("rm", "--all", "--yes", "--json").stdout)["removed"] > 10
    assert desk.figures() == (0, 10)


def test_warm_fills_the_cache_and_runs_no_sink(desk: Desk) -> None:
    definition(desk.folder, warped=True, warp_configuration={"queue": "nobody"})
    worker = launch_worker(
        "shifts", url=desk.environment["CELERYPIPE_REDIS_URL"], config='imports = ["shifts"]\n', cwd=desk.folder
    )
    try:
        done = desk.celerypipe("cache", "warm", "shift.json", "--place", "shift=shifts", "--set", "shift.timeout=60")
        assert "shift" in done.stdout
        assert not (desk.folder / "out.jsonl").exists()
        assert desk.computed == 10
        definition(desk.folder, warped=True, warp_configuration={"queue": "shifts"})
        assert desk.figures() == (10, 0)
        assert desk.computed == 10
    finally:
        worker.stop()
    nowhere = desk.celerypipe("cache", "warm", "shift.json", status=2, CELERYPIPE_REDIS_URL="")
    assert "results in a temporary Redis are lost at its end" in nowhere.stderr
    away = desk.cache("warm", desk.folder / "shift.json", "--redis", "unix:///nowhere/redis.sock", status=69)
    assert "Redis is not there" in away.stderr


def test_failures_are_run_again_on_demand_and_a_folder_does_without_redis(desk: Desk) -> None:
    path = definition(desk.folder, cache={"failures": True}, on_error="skip")
    text = path.read_text()
    path.write_text(text.replace('"count": 10', '"count": 15'))
    folder = {"CELERYPIPE_REDIS_URL": "", "CELERYPIPE_CACHE_URL": (desk.folder / "kept").as_uri()}
    assert desk.figures(**folder) == (0, 15)
    assert desk.figures(**folder) == (15, 0)
    assert desk.figures("--rerun-failing", **folder) == (14, 1)
    said = desk.celerypipe("run", "shift.json", CELERYPIPE_REDIS_URL="").stderr
    assert "the result cache is bypassed: it needs a Redis" in " ".join(said.split())
