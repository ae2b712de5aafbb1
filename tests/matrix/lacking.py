"""What this machine does not have, with the reason."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Lacking(Exception):
    """It is not to be had here; the text says why."""


def output(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command printed; :class:`Lacking` with its last line where it fails, or is not there."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Lacking(str(error)) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise Lacking(f"{Path(command[0]).name}: {said[-1]}")
    return done.stdout
