"""A private Redis with settings of its own, that is harmed on purpose and comes back."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field

from celerypipe.redis.connection import Client, connect
from tests.servers import RedisServer, eventually, redis_binary

#: Append-only, written through: what was answered is there after a kill.
DURABLE = {"appendonly": "yes", "appendfsync": "always", "rdbcompression": "no"}


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
