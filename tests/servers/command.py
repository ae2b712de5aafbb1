"""The command line of the checkout; forked, as most workers of the tests are."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.servers.checkout import ROOT
from tests.servers.patience import PATIENCE
from tests.servers.worker import WORKERS
from tests.servers.zygote import Forked, zygote


@dataclass
class RunningCommand:
    """One ``celerypipe`` process, and the files that it prints to."""

    process: Forked
    out: Path
    err: Path

    def finish(self, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Wait until it ends by itself."""
        try:
            status = self.process.wait(timeout)
        finally:
            self.kill()
        return subprocess.CompletedProcess(self.process.args, status, self.out.read_text(), self.err.read_text())

    def kill(self) -> None:
        """``kill -9`` it, if it lives."""
        self.process.kill()
        self.process.wait()


def begin(*words: object, cwd: Path = ROOT, **environment: str) -> RunningCommand:
    """Start ``celerypipe``, with variables of its own."""
    WORKERS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="command-", dir=WORKERS))
    out, err = folder / "out", folder / "err"
    around = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with out.open("wb") as first, err.open("wb") as second:
        process = zygote.fork(["celerypipe", *map(str, words)], cwd=cwd, environment=around, streams=(first, second))
    return RunningCommand(process, out, err)


def celerypipe(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """``celerypipe`` to its end."""
    return begin(*words, cwd=cwd, **environment).finish()
