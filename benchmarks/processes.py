"""Child processes of the suite: started by us, ended by their ids, and gone when we are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from celerypipe.embedded.server import die_with_parent

ROOT = Path(__file__).parents[1]
#: Seconds that processes together get to end by themselves.
GRACE = 8.0


def start(
    command: Sequence[str], *, log: IO[bytes] | int, environment: Mapping[str, str] | None = None, piped: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process in the checkout; ``log`` takes what it says, ``piped`` gives us its input and output."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("CELERY_", "CELERYPIPE_"))}
    return subprocess.Popen(  # noqa: S603  # commands of our own
        list(command),
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})},
        stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
        stdout=subprocess.PIPE if piped else log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for us, who end them
        preexec_fn=die_with_parent(),
    )


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to each, and after a grace SIGKILL to it and to what it started in its session."""
    running = list(processes)
    for process in running:
        process.terminate()
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def tree(pid: int) -> set[int]:
    """The process and everything below it."""
    found = {pid}
    for file in Path(f"/proc/{pid}/task").glob("*/children"):  # of each thread that started some
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in file.read_text().split():
                found |= tree(int(child))
    return found


def resident(pids: Iterable[int]) -> int:
    """Bytes of memory that the processes hold together."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
    return total
