"""A redis-server of a test's own, on a unix socket; one with settings of its own, too.

Without a redis-server the tests that need one are skipped at a desk and fail under ``CI``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from celerypipe.embedded.server import find_redis_server, private_folder, start_redis_server
from celerypipe.embedded.server import redis_url as url_in
from celerypipe.errors import ConfigError
from celerypipe.redis.connection import Client, connect
from tests.servers.patience import eventually

#: Append-only, written through: what was answered is there after a kill.
DURABLE = {"appendonly": "yes", "appendfsync": "always", "rdbcompression": "no"}


def redis_binary() -> Path:
    """The redis-server to test with; skips, or fails under CI, where there is none."""
    try:
        return find_redis_server()
    except ConfigError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@dataclass
class RedisServer:
    """A private redis-server that a test may stop, kill, freeze and start again."""

    folder: Path = field(default_factory=private_folder)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return url_in(self.folder)

    def start(self) -> RedisServer:
        (self.folder / "redis.sock").unlink(missing_ok=True)
        self.process = start_redis_server(redis_binary(), self.folder)
        eventually(self._answers, "an answer of redis-server")
        return self

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError, OSError), connect(self.url) as client:
            return bool(client.ping())
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def flush(self) -> None:
        """Forget everything."""
        with connect(self.url) as client:
            client.flushall()

    def restart_empty(self) -> None:
        """Kill it, and start one that knows nothing."""
        self.stop()
        self.start()

    def freeze(self, seconds: float = 4.0) -> None:
        """Stand still; by default for longer than the lease of a bell."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        threading.Event().wait(seconds)
        self.process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder)


@dataclass
class TunedRedis(RedisServer):
    """A redis-server with further settings, as ``redis.conf`` has them; ``start`` may be called with more of them."""

    settings: dict[str, str] = field(default_factory=dict)

    def start(self, *, wait: bool = True, **more: str) -> TunedRedis:
        (self.folder / "redis.sock").unlink(missing_ok=True)
        settings = {
            "port": "0",
            "unixsocket": str(self.folder / "redis.sock"),
            "save": "",
            "dir": str(self.folder),
            "logfile": str(self.folder / "redis.log"),
            **self.settings,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [str(redis_binary()), *arguments], stdout=subprocess.DEVNULL, start_new_session=True
        )
        if wait:
            eventually(self._answers, "an answer of redis-server")
        return self

    def client(self) -> Client:
        """A client of it, for a test to harm it with."""
        return connect(self.url, timeout=60.0)
