"""Where the suite measures: one redis-server, reached by its unix socket or over TCP, and the workers that it needs."""

from __future__ import annotations

import shutil
import socket
from contextlib import suppress
from types import TracebackType
from typing import Any

from benchmarks.crew import PATIENCE, Crew, wait_for
from benchmarks.plain import make_app
from benchmarks.processes import end, python, start
from celerypipe.embedded.server import find_redis_server, private_folder
from celerypipe.redis.connection import Trouble, connect
from celerypipe.worker.allocator import ENVIRONMENT

#: The ways to reach the same server.
PLACES = ("unix", "tcp")


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
            self.process = start([str(binary), *words], log=log, environment=ENVIRONMENT)
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


class Place(Crew):
    """One way to the server, and the processes that serve there."""

    def __init__(self, name: str, server: Server) -> None:
        super().__init__(server.url(name), server.folder, name)
        self.name, self.server = name, server
        self.plain_app = make_app(self.url)

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.plain_app.close()
        self.close()

    def plain(self) -> Any:
        """The application of the plain Celery worker, seen alive."""
        if not self.runs("plain"):
            command = python("celery", "-A", "benchmarks.plain", "worker", "-c", "1")
            self.start("plain", command, {"BENCHMARKS_PLAIN_URL": self.url})
            self.plain_app.tasks["same"].delay("there?").get(timeout=PATIENCE)
        return self.plain_app

    def opposite(self, part: str) -> None:
        """A bare process that plays the other end of a yardstick."""
        if not self.runs(part):
            self.start(part, python("benchmarks.opposite", part, self.url), {})
