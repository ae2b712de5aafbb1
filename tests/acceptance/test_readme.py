"""The README as a reader types it: from an empty folder, in which celerypipe is all there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.readme import ADDRESS, TEXT, command_and_lines, save, script
from tests.servers import PATIENCE, ROOT, StartWorker
from tests.servers.extent import LONG


@pytest.mark.timeout(5 * PATIENCE)
def test_the_first_run_leaves_the_lines_that_are_shown(tmp_path: Path, redis_url: str) -> None:
    library, folder = tmp_path / "library", tmp_path / "empty"
    library.mkdir()
    folder.mkdir()
    (library / "celerypipe").symlink_to(ROOT / "celerypipe")  # without the tasks/ of this checkout
    assert save(folder) == ["tasks/sound.py", "pipeline.json"]
    (program, *words), lines = command_and_lines()
    assert (program, words[0], len(lines)) == ("celerypipe", "run", 2)
    around = {name: value for name, value in os.environ.items() if not name.startswith("CELERY")}
    for way in ([], ["--local"])[: 2 if LONG else 1]:
        done = subprocess.run(
            [sys.executable, "-m", "celerypipe", *words, *way],
            cwd=folder,
            env={**around, "PYTHONPATH": str(library)},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,  # it imports everything three times
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "no timeout" not in done.stderr
        left = folder / "loudness.jsonl"
        assert left.read_text().splitlines() == lines
        left.unlink()


def test_its_scripts_run_as_they_stand(tmp_path: Path, redis_url: str, start_worker: StartWorker) -> None:
    library, folder = tmp_path / "library", tmp_path / "project"
    library.mkdir()
    folder.mkdir()
    (library / "celerypipe").symlink_to(ROOT / "celerypipe")
    assert [*save(folder), *save(folder, "Call functions")][::2] == ["tasks/sound.py", "tasks/tones.py"]
    for queue in ("sound", "tones"):
        assert f"celerypipe worker --redis {ADDRESS} -Q {queue}" in TEXT
    around = {"PYTHONPATH": str(library)}
    start_worker("sound,tones", cwd=folder, env=around, pool="solo", typed=("celerypipe",), fresh=True)
    said = {}
    for name in ("From Python", "Call functions"):
        (folder / "script.py").write_text(script(name, redis_url))
        command, env = [sys.executable, "script.py"], {**os.environ, **around}
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout.splitlines()
    assert said["From Python"] == ["door 0.52", "rain 0.141"]
    assert re.match(r"220\.0 done \d+\.\d", said["Call functions"][0])
    assert said["Call functions"][1:] == ["220.0", "440.0", "880.0"]


@pytest.mark.parametrize(
    "extra", ["embedded", "speech", "images", "vision", "demo", "yaml", "compression", "cache", "dev"]
)
def test_each_extra_is_explained(extra: str) -> None:
    assert f'"{extra}": ' in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{extra}` \| .+ \|$", TEXT, re.MULTILINE)


def test_the_command_stands_where_the_demo_installs_it() -> None:
    venv = f".venv-{sys.version_info.major}.{sys.version_info.minor}"
    if venv not in TEXT:
        pytest.skip("the README names the environment of another Python")
    asked = ["make", "--dry-run", "--always-make", "demo", f"PYTHON={sys.executable}"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{venv}/bin/celerypipe run examples/pages/pipeline.json" in done.stdout
    assert f"`{venv}/bin/celerypipe run examples/pages/pipeline.json`" in TEXT
    assert "--quiet" not in done.stdout  # pip shows what it downloads
