"""The processes that serve at one Redis: workers, and whatever else answers there."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.processes import end, python, start
from celerypipe.mailbox.blob.shared_memory import is_proven
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis.connection import connect

CONFIGS = Path(__file__).parent / "worker_configs"
#: Seconds a server or a worker may take to come up.
PATIENCE = 60.0


class Crew:
    """Processes that are started when first asked for. ``name``: what their logs in the folder begin with."""

    def __init__(self, url: str, folder: Path, name: str) -> None:
        self.url = url
        self._logs = folder / name
        self._running: dict[str, list[subprocess.Popen[bytes]]] = {}

    def close(self) -> None:
        """End all of them."""
        end(process for processes in self._running.values() for process in processes)

    def log(self, name: str) -> Path:
        """What the processes of that name printed."""
        return self._logs.with_name(f"{self._logs.name}-{name}.log")

    def workers(self, queue: str, count: int = 1) -> list[subprocess.Popen[bytes]]:
        """So many ``celerypipe worker`` processes on a queue, seen alive."""
        if not self.runs(queue):
            command = python("celerypipe", "worker", "-Q", queue)
            environment = {"CELERYPIPE_REDIS_URL": self.url, "CELERYPIPE_WORKER_CONFIGS": str(CONFIGS)}
            self.start(queue, command, environment, count)
            for worker in self._running[queue]:
                wait_for(partial(self._present, worker.pid), f"worker {queue}", worker, self.log(queue))
        return self._running[queue]

    def runs(self, name: str) -> bool:
        """Whether processes of that name were started."""
        return name in self._running

    def start(self, name: str, command: list[str], environment: Mapping[str, str], count: int = 1) -> None:
        """Start so many processes."""
        with self.log(name).open("ab") as log:
            running = self._running.setdefault(name, [])
            for _ in range(count):
                running.append(start(command, log=log, environment=environment))

    def shares_memory(self) -> bool:
        """Whether large payloads can go through shared memory: all workers prove that they see this machine's."""
        with connect(self.url) as client:
            return all(is_proven(str(record.get("shared", ""))) for record in read_presences(client))

    def _present(self, pid: int) -> bool:
        with connect(self.url) as client:
            return any(record["pid"] == pid for record in read_presences(client))


def wait_for(
    condition: Callable[[], object], what: str, process: subprocess.Popen[bytes] | None = None, log: Path | None = None
) -> None:
    """Wait until it holds; say what did not come, and what its process printed."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            text = log.read_text(errors="replace")[-2000:] if log is not None else ""
            raise RuntimeError(f"{what} {'ended' if ended else 'did not come'}\n{text}")
        time.sleep(0.02)
