"""What ``pip install .`` brings is enough: no extra, and nothing that this checkout's environment has besides.

``make installed``: pip needs half a minute of a core. In the suite ``tests/unit/test_house.py`` compares imports with
what is declared.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.runs.readme import command_and_lines, save
from tests.runs.tutorial import COUNT, QUICK, Tutorial
from tests.servers import PATIENCE, launch_worker
from tests.servers.extent import at_length
from tests.servers.installation import Installation, plain_environment

pytestmark = [at_length, pytest.mark.timeout(400)]  # most of it is pip's

#: Imports every module of the package but those whose heavy packages are an extra, which say so themselves.
EVERYTHING = """
import importlib, pkgutil
import celerypipe

found = [module.name for module in pkgutil.walk_packages(celerypipe.__path__, "celerypipe.")]
assert len(found) > 100, found
for name in found:
    if not name.endswith("__main__"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            assert "pip install 'celerypipe[" in str(error), (name, error)
print(celerypipe.__file__)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """``pip install .``, as setup.py stands."""
    folder = tmp_path_factory.mktemp("plain")
    installation = Installation(folder)
    installation.install(".")
    return installation


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_every_module_imports_what_is_declared_only(installed: Installation, empty: Path) -> None:
    done = installed.run("python", "-c", EVERYTHING, folder=empty)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed.environment)


def test_a_bare_worker_starts_in_an_empty_folder_and_ends_when_told(
    installed: Installation, empty: Path, redis_url: str
) -> None:
    worker = launch_worker(
        "plain", url=redis_url, cwd=empty, python=installed.command("python"), env={"PYTHONPATH": ""}, wait=False
    )
    try:
        worker.wait_for_presence()
        assert worker.presence["queues"] == ["plain"]
        worker.tell_to_end()
        assert worker.wait_for_end() == 0, worker.text()
    finally:
        worker.kill()


def test_the_readme_and_the_tutorial_run_from_an_empty_folder_over_an_embedded_redis(
    installed: Installation, empty: Path, tmp_path: Path, redis_url: str
) -> None:
    installed.install(".[embedded]")
    assert save(tmp_path)
    (program, *words), lines = command_and_lines()
    first = installed.run(program, *words, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "loudness.jsonl").read_text().splitlines() == lines
    tutorial = Tutorial(tmp_path / "tutorial")
    arrived = tmp_path / "arrived"
    serve = [installed.command("python"), tutorial.folder / "server.py", "--port", "0", "--count", str(COUNT)]
    with subprocess.Popen(
        [*serve, "--output", arrived], cwd=empty, env=plain_environment(), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            endpoint = server.stdout.readline().removeprefix("listening on ").strip()
            definition = tutorial.change("pipeline.json", {**QUICK, "ws://127.0.0.1:8081": endpoint})
            done = installed.run("celerypipe", "run", definition, folder=empty)
            assert done.returncode == 0, done.stderr
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()
    assert [json.loads(line)["payload"] for line in arrived.read_text().splitlines()] == list(range(COUNT))
    assert list(empty.iterdir()) == []
