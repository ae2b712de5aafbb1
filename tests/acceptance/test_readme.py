"""The first run of the README, as a reader types it: from an empty folder, in which celerypipe is all there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.readme import command_and_lines, save
from tests.servers import PATIENCE, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


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
    for way in ([], ["--local"]):
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


@pytest.mark.parametrize(
    "extra", ["embedded", "speech", "images", "vision", "demo", "yaml", "compression", "cache", "dev"]
)
def test_each_extra_is_explained(extra: str) -> None:
    assert f'"{extra}": ' in (ROOT / "setup.py").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{extra}` \| .+ \|$", README, re.MULTILINE)


def test_the_command_stands_where_the_demo_installs_it() -> None:
    venv = f".venv-{sys.version_info.major}.{sys.version_info.minor}"
    if venv not in README:
        pytest.skip("the README names the environment of another Python")
    asked = ["make", "--dry-run", "--always-make", "demo", f"PYTHON={sys.executable}"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{venv}/bin/celerypipe run examples/pages/pipeline.json" in done.stdout
    assert f"`{venv}/bin/celerypipe run examples/pages/pipeline.json`" in README
    assert "--quiet" not in done.stdout  # pip shows what it downloads
