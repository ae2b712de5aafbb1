"""Where the suite measures: one redis-server, reached by its unix socket or over TCP, and the workers that it needs."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.plain import make_app
from benchmarks.processes import end, python, start
from celerypipe.connection import Trouble, connect
from celerypipe.presence import read_presences
from celerypipe.redis_server import find_redis_server, private_folder

#: The ways to reach the same server.
PLACES = ("unix", "tcp")
CONFIGS = Path(__file__).parent / "worker_configs"
#: Seconds a server or a worker may take to come up.
PATIENCE = 60.0


class Server:
    """A private redis-server on a unix socket and on an address, for the length of a ``with`` block."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host

    def __enter__(self) -> Server:
        binary = find_redis_server()
        self.folder = private_folder()
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.port = probe.getsockname()[1]
        settings = {
            "bind": self.host,
            "protected-mode": "no",  # who reaches that address is meant to: it is this machine's alone
            "port": str(self.port),
            "unixsocket": str(self.folder / "redis.sock"),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "dir": str(self.folder),
            "maxmemory-policy": "noeviction",
        }
        self.log = self.folder / "redis.log"
        with self.log.open("wb") as log:
            words = [word for key, value in settings.items() for word in (f"--{key}", value)]
            self.process = start([str(binary), *words], log=log)
        try:
            wait_for(self._answers, "redis-server", self.process, self.log)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def url(self, place: str) -> str:
        """Its address at a place."""
        return f"unix://{self.folder / 'redis.sock'}?db=0" if place == "unix" else f"redis://{self.host}:{self.port}/0"

    def _answers(self) -> bool:
        with suppress(*Trouble), connect(self.url("tcp"), timeout=2.0) as client:
            info: Any = client.info("server")
            self.version = str(info["redis_version"])
            return True
        return False

    def _leave(self) -> None:
        end([self.process])
        shutil.rmtree(self.folder, ignore_errors=True)


class Place:
    """One way to the server, and the processes that serve there; they are started when first asked for."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.server = server
        self.url = server.url(name)
        self.plain_app = make_app(self.url)
        self._running: dict[str, list[subprocess.Popen[bytes]]] = {}

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.plain_app.close()
        end(process for processes in self._running.values() for process in processes)

    def log(self, name: str) -> Path:
        """What the processes of that name printed."""
        return self.server.folder / f"{self.name}-{name}.log"

    def workers(self, queue: str, count: int = 1) -> list[subprocess.Popen[bytes]]:
        """So many ``celery -A celerypipe worker`` processes on a queue, seen alive."""
        if queue not in self._running:
            command = python("celery", "-A", "celerypipe", "worker", "-Q", queue)
            environment = {"CELERYPIPE_REDIS_URL": self.url, "CELERYPIPE_WORKER_CONFIGS": str(CONFIGS)}
            self._start(queue, command, environment, count)
            for worker in self._running[queue]:
                wait_for(partial(self._present, worker.pid), f"worker {queue}", worker, self.log(queue))
        return self._running[queue]

    def plain(self) -> Any:
        """The application of the plain Celery worker, seen alive."""
        if "plain" not in self._running:
            command = python("celery", "-A", "benchmarks.plain", "worker", "-c", "1")
            self._start("plain", command, {"BENCHMARKS_PLAIN_URL": self.url})
            self.plain_app.tasks["same"].delay("there?").get(timeout=PATIENCE)
        return self.plain_app

    def opposite(self, part: str) -> None:
        """A bare process that plays the other end of a yardstick."""
        if part not in self._running:
            self._start(part, python("benchmarks.opposite", part, self.url), {})

    def _start(self, name: str, command: list[str], environment: Mapping[str, str], count: int = 1) -> None:
        with self.log(name).open("ab") as log:
            running = self._running.setdefault(name, [])
            for _ in range(count):
                running.append(start(command, log=log, environment=environment))

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
