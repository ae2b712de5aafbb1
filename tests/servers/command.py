"""The command line of the checkout."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.servers.checkout import ROOT
from tests.servers.patience import PATIENCE
from tests.servers.zygote import zygote


def celerypipe(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """``celerypipe`` to its end, with variables of its own; forked, as most workers of the tests are."""
    command = ["celerypipe", *map(str, words)]
    around = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        process = zygote.fork(command, cwd=cwd, environment=around, streams=(out, said))
        try:
            status = process.wait(PATIENCE)
        finally:
            process.kill()
        for stream in (out, said):
            stream.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), said.read())
