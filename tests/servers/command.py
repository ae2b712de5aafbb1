"""The command line of the checkout, and other programs of Python; forked, as most workers of the tests are."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.servers.checkout import ROOT
from tests.servers.patience import PATIENCE, eventually
from tests.servers.worker import workers_folder
from tests.servers.zygote import Forked, zygote


@dataclass
class RunningCommand:
    """One process, and the files that it prints to."""

    process: Forked
    out: Path
    err: Path

    def wait_for(self, text: str) -> str:
        """Wait until it printed the text; return what stands behind it in that line."""

        def line() -> str:
            return self.out.read_text().partition(text)[2] if self.process.poll() is None else "\n"

        return eventually(lambda: "\n" in line() and line(), f"{text!r} of {self.process.args}").partition("\n")[0]

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


def start(*words: object, cwd: Path = ROOT, **environment: str) -> RunningCommand:
    """Start Python: ``-m`` and a module, ``-c`` and a text, or a file; with variables of its own."""
    folder = Path(tempfile.mkdtemp(prefix="command-", dir=workers_folder()))
    out, err = folder / "out", folder / "err"
    around = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with out.open("wb") as first, err.open("wb") as second:
        process = zygote.fork([*map(str, words)], cwd=cwd, environment=around, streams=(first, second))
    return RunningCommand(process, out, err)


def begin(*words: object, cwd: Path = ROOT, **environment: str) -> RunningCommand:
    """Start ``celerypipe``, with variables of its own."""
    return start("-m", "celerypipe", *words, cwd=cwd, **environment)


def celerypipe(*words: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """``celerypipe`` to its end."""
    return begin(*words, cwd=cwd, **environment).finish()
