"""A Redis, its replica and the Sentinel that watches them, for tests of a failover."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from typing import Any

import redis

from celerypipe.redis.connection import connect
from tests.servers import eventually
from tests.servers.port import free_port
from tests.servers.redis import TunedRedis, redis_binary

MASTER = "mymaster"


class Watched:
    """Two Redis on TCP, both with a password, and one Sentinel with a password of its own."""

    def __init__(self) -> None:
        self.password, self.own = "s3cret", "h1dden"
        self.ports = [free_port(), free_port()]
        self.servers = [
            TunedRedis(settings={"port": str(port), "requirepass": self.password, "masterauth": self.password})
            for port in self.ports
        ]
        self.sentinel_port = free_port()
        self._sentinel: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As a user writes it; the first Sentinel of it is not there."""
        places = f"127.0.0.1:{free_port()},127.0.0.1:{self.sentinel_port}"
        return f"sentinel://:{self.password}@{places}/{MASTER}/0?sentinel_password={self.own}"

    def __enter__(self) -> Watched:
        for server in self.servers:
            server.start(wait=False)
        self.ask(1, "REPLICAOF", "127.0.0.1", self.ports[0])
        eventually(lambda: b"connected" in self.ask(1, "ROLE"), "replication")
        self._start_sentinel()
        eventually(lambda: self.ask_sentinel("SENTINEL", "REPLICAS", MASTER), "a Sentinel that knows the replica")
        return self

    def __exit__(self, *_: object) -> None:
        if self._sentinel is not None:
            self._sentinel.kill()
            self._sentinel.wait()
        for server in self.servers:
            server.remove()

    def ask(self, which: int, *command: Any) -> Any:
        """Ask one of the two, once it is there."""

        def answer() -> Any:
            with suppress(redis.ConnectionError, redis.TimeoutError), connect(self._url(self.ports[which])) as client:
                return client.call(*command)

        return eventually(answer, f"an answer to {command[0]}")

    def ask_sentinel(self, *command: Any) -> Any:
        """Ask the Sentinel; None while it is not there, or refuses."""
        with suppress(redis.RedisError), connect(f"redis://:{self.own}@127.0.0.1:{self.sentinel_port}/0") as client:
            return client.call(*command)

    def _url(self, port: int) -> str:
        return f"redis://:{self.password}@127.0.0.1:{port}/0"

    def _start_sentinel(self) -> None:
        folder = self.servers[0].folder / "sentinel"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        lines = [
            f"port {self.sentinel_port}",
            f"dir {folder}",
            f"logfile {folder / 'log'}",
            f"requirepass {self.own}",
            f"sentinel monitor {MASTER} 127.0.0.1 {self.ports[0]} 1",
            f"sentinel auth-pass {MASTER} {self.password}",
            f"sentinel down-after-milliseconds {MASTER} 1000",
            f"sentinel failover-timeout {MASTER} 3000",
        ]
        (folder / "sentinel.conf").write_text("\n".join(lines))
        command = [str(redis_binary()), str(folder / "sentinel.conf"), "--sentinel"]
        self._sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
