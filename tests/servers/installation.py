"""A plain installation: what users have, in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.servers.checkout import ROOT
from tests.servers.patience import PATIENCE

#: Seconds for one installation on a slow line.
DOWNLOADS = 300.0
#: What says that pip reached nobody, not that we asked for something wrong.
NO_NETWORK = ("NewConnectionError", "Name or service not known", "Temporary failure in name resolution")


class Installation:
    """A fresh virtual environment, and copies of what is installed into it: a build writes beside its sources."""

    def __init__(self, folder: Path) -> None:
        self.environment = folder / "environment"
        self.sources = folder / "sources"
        self.sources.mkdir()
        for name in ("celerypipe", "tasks", "examples", "worker_configs"):  # what templates are links to
            ignored = shutil.ignore_patterns("__pycache__", "out")
            shutil.copytree(ROOT / name, self.sources / name, symlinks=True, ignore=ignored)
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.sources)
        subprocess.run([sys.executable, "-m", "venv", self.environment], check=True, timeout=DOWNLOADS)

    def command(self, name: str) -> Path:
        """Where a program of the environment is."""
        return self.environment / "bin" / name

    def install(self, *requirement: str, folder: Path | None = None) -> None:
        """``pip install``; skips, or fails under CI, where there is no network."""
        command = [self.command("python"), "-m", "pip", "install", "--quiet", *requirement]
        place = folder or self.sources
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=DOWNLOADS, check=False)
        if done.returncode and not os.environ.get("CI") and any(sign in done.stderr for sign in NO_NETWORK):
            pytest.skip("no package index can be reached")
        assert done.returncode == 0, done.stderr[-2000:]

    def run(self, *words: object, folder: Path, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in the folder, seeing nothing of this checkout."""
        command = [str(self.command(str(words[0]))), *map(str, words[1:])]
        return subprocess.run(
            command, cwd=folder, env=plain_environment(), capture_output=True, text=True, timeout=timeout, check=False
        )


def plain_environment() -> Mapping[str, str]:
    """What is around a program that sees nothing of this checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
