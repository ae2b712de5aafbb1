"""The Pythons of the matrix, each with an environment of its own."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from tests.matrix.lacking import Lacking, output
from tests.servers import ROOT

#: All but the one that is asked for them: that runs with each server.
OTHERS = tuple(f"3.{minor}" for minor in range(11, 15) if minor != sys.version_info.minor)
#: What workers of the tests import, and tools; no server: the matrix gives each the same one.
EXTRAS = "vision,speech,dev"


def _interpreter(version: str) -> Path:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = shutil.which(f"python{version}")
    for python in (*([Path(found)] if found else []), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)):
        with suppress(Lacking):  # the shim of pyenv for one that is not chosen
            if output(python, "--version").startswith(f"Python {version}."):
                return python
    raise Lacking(f"there is no python{version} on PATH, and none of pyenv")


def environment(version: str, folder: Path) -> Path:
    """Return an interpreter with celerypipe and what its tests need; installing takes two minutes, once."""
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists() or ready.stat().st_mtime < (ROOT / "setup.py").stat().st_mtime:
        found = _interpreter(version)
        shutil.rmtree(folder, ignore_errors=True)
        output(found, "-m", "venv", folder)
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        output(*pip, "-e", f".[{EXTRAS}]", cwd=ROOT)
        ready.touch()
    return python
