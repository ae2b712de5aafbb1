"""The checkout that is tested, and its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.servers.patience import PATIENCE

ROOT = Path(__file__).parents[2]


def celerypipe(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """``celerypipe`` to its end, with variables of its own."""
    return subprocess.run(
        [sys.executable, "-m", "celerypipe", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
