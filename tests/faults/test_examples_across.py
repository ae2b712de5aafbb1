"""The examples, unchanged, on machines of their own: Redis, the one that runs the pipeline, and two with hosts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runs.pictures import EXAMPLE, require_vision
from tests.runs.tutorial import COUNT, QUICK, Tutorial
from tests.servers import ROOT, eventually
from tests.servers.extent import at_length
from tests.servers.network import NetworkMachine, network

pytestmark = [at_length, pytest.mark.timeout(400)]


@dataclass
class Lab:
    """``around``: what every machine has in its environment; ``here``: where pipelines are started."""

    here: NetworkMachine
    one: NetworkMachine
    two: NetworkMachine
    around: dict[str, str]

    def command(self, *words: object, cwd: Path, seconds: float = 30.0) -> tuple[str, str]:
        """Run a command of ours where pipelines are started; return what it printed, and said."""
        process = self.here.python(
            "-m",
            "celerypipe",
            *words,
            environment=self.around,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        printed, said = process.communicate(timeout=seconds)
        assert process.returncode == 0, printed + said
        return printed, said

    def host(self, machine: NetworkMachine, folder: Path, queue: str, config: str) -> None:
        """Start a host there, and a worker of the queue by it; ``config``: its file."""
        (folder / "worker_configs").mkdir(parents=True)
        (folder / "worker_configs" / f"{queue}.toml").write_text(f'{config}\nworker_pool = "solo"\n')
        (folder / "host.toml").write_text(f"[queues.{queue}]\nmost = 1\n")
        words = ("-m", "celerypipe", "host", "--name", machine.name)
        with (folder / f"{machine.name}.log").open("w") as log:
            machine.python(*words, environment=self.around, cwd=folder, stdout=log, stderr=log)

        def is_up() -> bool:
            hosts = json.loads(self.command("hosts", "--json", cwd=folder)[0])
            return [each["state"] for each in hosts if each["name"] == machine.name] == ["up"]

        eventually(is_up, f"host {machine.name}")
        self.command("worker", "start", "-Q", queue, "--host", machine.name, cwd=folder, seconds=120.0)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with network() as made:
        server, *others = (made.machine(name) for name in ("redis", "runner", "one", "two"))
        url = made.redis(server, tmp_path)
        yield Lab(*others, {"CELERYPIPE_REDIS_URL": url, "XDG_STATE_HOME": str(tmp_path / "state")})


def test_pages_are_read_on_one_machine_and_faces_found_on_another(lab: Lab, tmp_path: Path) -> None:
    require_vision()
    for machine, queue in ((lab.one, "gpu"), (lab.two, "cpu")):
        lab.host(machine, tmp_path / machine.name, queue, f'imports = ["tasks.{queue}"]')
    folder = tmp_path / "runner"
    folder.mkdir()
    run = ("run", EXAMPLE / "pipeline.json", "--json")
    lab.command(*run, cwd=folder, seconds=200.0)
    out = folder / "examples" / "pages" / "out"
    records = {each["image"]: each for each in map(json.loads, (out / "pages.jsonl").read_text().splitlines())}
    assert [len(record["faces"]) for record in records.values()] == [0, 0, 1, 1]
    assert [line["text"] for line in records["grace_hopper"]["lines"]] == ["COMO HOPPER"]
    assert sorted(path.stem for path in out.glob("*.png")) == sorted(records)


def test_the_tutorial_runs_with_its_heavy_node_elsewhere(lab: Lab, tmp_path: Path) -> None:
    tutorial, output = Tutorial(tmp_path / "tutorial"), tmp_path / "arrived"
    lab.host(lab.one, tmp_path / "one", "remote", f'plugins = ["{tutorial.folder / "plugins"}"]')
    words = (tutorial.folder / "server.py", "--port", 8081, "--count", COUNT, "--output", output)
    server = lab.here.python(*words, environment=lab.around, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert "listening on " in server.stdout.readline()
    lab.command("run", tutorial.change("pipeline.json", QUICK), cwd=ROOT, seconds=60.0)
    assert server.wait(10) == 0
    assert len(output.read_text().splitlines()) == COUNT
