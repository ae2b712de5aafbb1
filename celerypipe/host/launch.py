"""A worker is started as a child of its host, or found again by a host that came back."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from celerypipe.embedded.resident import last_lines
from celerypipe.heartbeat.descendants import NOTHING_STAYS
from celerypipe.heartbeat.procfs import pidfd, process_of, read
from celerypipe.host.devices import shown_only
from celerypipe.host.records import WorkerSet
from celerypipe.process import activity
from celerypipe.process.activity import Activity, beside
from celerypipe.process.parent import die_with_parent
from celerypipe.redis.namespace import DEFAULT
from celerypipe.settings import HOST_VARIABLE
from celerypipe.worker import group, preload

#: Seconds that the log of a worker is kept that writes no more.
LOG_SECONDS = 7 * 24 * 3600


class WorkerProcess:
    """A worker's process."""

    def __init__(self, pid: int, log: Path, process: subprocess.Popen[bytes] | None = None, began: int = 0) -> None:
        self.pid = pid
        self.log = log
        self.activity = Activity(beside(log))
        self._process = process
        self._began = began
        self._fd = pidfd(pid) if process is None else -1
        self._ended = False

    def status(self) -> int | None:
        """Return its exit status once it ended; of one that another host started nobody can tell it: it counts as 1."""
        if self._process is not None:
            return self._process.poll()
        if self._fd >= 0:
            self._ended = self._ended or bool(select.select([self._fd], [], [], 0)[0])
        else:
            one = process_of(self.pid)
            self._ended = one is None or one.began != self._began or one.state in b"ZX"
        return 1 if self._ended else None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)
        elif self.status() is None:
            with suppress(ProcessLookupError):
                if self._fd >= 0:
                    signal.pidfd_send_signal(self._fd, number)
                else:
                    os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, and all of its group."""
        if self.status() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def tail(self) -> str:
        """The last lines of its log."""
        return last_lines(self.log)


class Detached(msgspec.Struct, frozen=True):
    """A worker that outlives its host, as the folder of the host remembers it."""

    pid: int
    began: int
    token: str
    log: str
    number: int
    set: WorkerSet
    device: str = ""


@dataclass
class Launch:
    """How workers of this host are started. ``folder``: where it keeps their logs, and which are detached."""

    host: str
    folder: Path
    environment: Mapping[str, str]

    def start(self, wanted: WorkerSet, number: int, device: str) -> WorkerProcess:
        """Start one that sees this GPU, empty: as its host does; :class:`OSError` if that cannot be."""
        token = secrets.token_hex(8)
        log = self.folder / f"{wanted.queue.replace('/', '_')}-{wanted.id}-{number}.log"
        said = {HOST_VARIABLE: f"{self.host}/{wanted.id}/{number}/{token}", NOTHING_STAYS: "yes", **shown_only(device)}
        Activity.make(beside(log))
        said[activity.VARIABLE] = str(beside(log).absolute())
        if wanted.preload:
            said[preload.VARIABLE] = json.dumps(wanted.preload)
        with log.open("ab", buffering=0) as file:
            process = subprocess.Popen(  # noqa: S603  # this interpreter, for a queue of this machine's own list
                [sys.executable, "-m", "celerypipe", "worker", *_options(self.host, wanted, number)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **self.environment, **said},
                start_new_session=True,  # Ctrl-C is for the host, which ends them in good order
                preexec_fn=partial(_begin, None if wanted.detached else die_with_parent()),
            )
        if wanted.detached and (one := process_of(process.pid)) is not None:
            kept = Detached(process.pid, one.began, token, str(log), number, wanted, device)
            (self.folder / f"detached-{process.pid}.json").write_bytes(msgspec.json.encode(kept))
        return WorkerProcess(process.pid, log, process)

    def clear_up(self) -> None:
        """Remove the logs of workers that are gone for long."""
        for file in (*self.folder.glob("*.log"), *self.folder.glob("*.activity")):
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > LOG_SECONDS:
                    file.unlink()

    def found(self) -> list[tuple[Detached, WorkerProcess]]:
        """Return the detached workers of a host of this name that ended, which still live."""
        there = []
        for file in sorted(self.folder.glob("detached-*.json")):
            with suppress(OSError, ValueError):
                kept = msgspec.json.decode(file.read_bytes(), type=Detached)
                one = process_of(kept.pid)
                is_it = one is not None and one.began == kept.began and one.state not in b"ZX"
                if is_it and kept.token.encode() in read(f"/proc/{kept.pid}/environ"):
                    there.append((kept, WorkerProcess(kept.pid, Path(kept.log), None, kept.began)))
                    continue
            file.unlink(missing_ok=True)
        return there


def _begin(arm: Callable[[], None] | None) -> None:
    """In the child: what a shell in the background has its commands ignore must not keep a worker from ending."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if arm is not None:
        arm()


def state_folder(name: str, namespace: str) -> Path:
    """Return where a host keeps what it writes, if nobody says where."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "celerypipe" / "hosts" / (name if namespace == DEFAULT else f"{namespace}.{name}")


def spared_in(folder: Path) -> set[tuple[int, int]]:
    """Return the workers that may outlive the host of this folder: number, and when each began."""
    there = set()
    for file in folder.glob("detached-*.json"):
        with suppress(OSError, ValueError):
            kept = msgspec.json.decode(file.read_bytes(), type=Detached)
            there.add((kept.pid, kept.began))
    return there


def _options(host: str, wanted: WorkerSet, number: int) -> list[Any]:
    # A worker of one process may hold nodes by name, and is asked for that on a queue of its own.
    queues = f"{wanted.queue},{group.QUEUE}{wanted.id}" if wanted.pool == "solo" else wanted.queue
    options = ["-Q", queues, "-n", f"{wanted.queue.replace('@', '_')}-{wanted.id}-{number}@{host}"]
    if wanted.pool is not None:
        options += ["-P", wanted.pool]
    if wanted.slots is not None:
        options += ["-c", str(wanted.slots)]
    return options
