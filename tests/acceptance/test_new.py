"""A new project, as it is made: its checks, its tests, its pipeline, and nodes that are added to it.

With the packages of this environment. ``make projects``, at length: each example with what its pyproject.toml names
and nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from celerypipe.catalogue.plugin import TYPES
from celerypipe.scaffold.example import EXAMPLES
from celerypipe.scaffold.stub import Stub
from celerypipe.scaffold.template import TEMPLATES
from tests.servers import PATIENCE, ROOT, eventually
from tests.servers.command import celerypipe, start
from tests.servers.extent import LONG, at_length
from tests.servers.installation import Installation, plain_environment
from tests.servers.terminal import Terminal

#: What a project's README names, but for what installs it.
CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("pytest", "-q"))


def run_here(*words: str, cwd: Path) -> str:
    """Run a tool of this environment; return what it printed."""
    # What mypy found out about numpy stays in the checkout.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(3 * PATIENCE)  # it starts Python six times
def test_an_empty_project_runs_is_clean_and_takes_more_nodes(tmp_path: Path, redis_url: str) -> None:
    """``redis_url``: for its answer to a missing redis-server."""
    assert celerypipe("new", "door", "--no-input", cwd=tmp_path).returncode == 0
    project = tmp_path / "door"
    run = start("-m", "celerypipe", "run", "pipeline.json", cwd=project)  # while the rest is done
    for kind in TYPES:
        Stub(f"{kind}-a", kind).write(project)
        Stub(f"{kind}-b", kind, is_plugin=True).write(project)
    for words in (*CHECKS[:2], *([("mypy", "tasks", "tests", "plugins")] if LONG else [])):
        run_here(*words, cwd=project)
    assert "9 passed" in run_here("pytest", "-q", cwd=project)
    done = run.finish()
    assert done.returncode == 0, done.stderr
    lines = (project / "out" / "results.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == [{"name": "door", "loudness": 0.52}, {"name": "rain", "loudness": 0.141}]


@pytest.mark.parametrize(("typed", "status"), [("spectra\n", 0), ("\n", 0), ("\x03", 130), ("\x04", 130)])
def test_on_a_terminal_it_asks(typed: str, status: int, tmp_path: Path) -> None:
    terminal = Terminal()
    try:
        asking = terminal.start("-m", "celerypipe", "new", "door", cwd=tmp_path)
        eventually(lambda: "[speech]: " in terminal.text, "the question")
        terminal.type(typed)
        assert asking.wait(PATIENCE) == status, terminal.text
    finally:
        terminal.close()
    assert all(each.about in terminal.text for each in EXAMPLES.values())
    assert (tmp_path / "door" / "study.py").is_file() == (typed == "spectra\n")
    assert (tmp_path / "door" / "recordings").is_dir() == (typed == "\n")
    assert (tmp_path / "door").is_dir() == (status == 0)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """celerypipe as a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    installation = Installation(folder)
    done = installation.run(
        "python", "-m", "pip", "wheel", "-q", "--no-deps", ".", folder=installation.sources, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (found,) = installation.sources.glob("*.whl")
    templates = {file.relative_to(ROOT).as_posix() for file in TEMPLATES.rglob("*-tpl")}
    assert templates <= set(zipfile.ZipFile(found).namelist())
    return found


@at_length
@pytest.mark.timeout(1200)  # most of it is pip's
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_three_commands_work_as_printed_with_what_the_project_names_alone(
    example: str, wheel: Path, tmp_path: Path
) -> None:
    installation = Installation(tmp_path)
    installation.install(str(wheel))
    environment = dict(plain_environment())
    environment["PATH"] = f"{installation.environment / 'bin'}{os.pathsep}{environment['PATH']}"
    told = subprocess.run(
        ["celerypipe", "new", "door", "--example", example],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    commands = [line.strip() for line in told.stdout.splitlines() if line.startswith("  ")]
    assert commands == ["cd door", "pip install -e '.[dev]'", "celerypipe run pipeline.json"]
    more = ["python study.py 4"] if example == "spectra" else []
    script = "\n".join(["set -e", *commands, *(" ".join(words) for words in CHECKS), *more])
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert list((tmp_path / "door" / "out").glob("*.jsonl"))
