"""What clients ask of Redis, by the process that asks: the commands that it sends, and its connections.

Commands inside scripts are not counted: they cost no round trip. Linux only: ``/proc`` says whose a connection is.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

#: What its own connections are called.
_NAME = "celerypipe-witness"


class Witness:
    """Watches one server, by its address; its own commands and connections count for nothing."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, client_name=_NAME)
        self._other = redis.Redis.from_url(url, client_name=_NAME)
        self._port = int(self._client.connection_pool.connection_kwargs["port"])

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()
        self._other.close()

    def commands(self, seconds: float) -> Counter[int]:
        """The commands that were sent through each connection in so many seconds; a connection is its local port."""
        end = secrets.token_hex(8)
        timer = threading.Timer(seconds, self._other.execute_command, ("ECHO", end))
        found: Counter[int] = Counter()
        client: Any = self._client
        with client.monitor() as monitor:
            timer.start()
            for each in monitor.listen():
                if end in each["command"]:
                    return found
                if each["client_type"] != "lua":
                    found[int(each["client_port"])] += 1
        raise AssertionError("MONITOR ended by itself")

    def sent(self) -> int:
        """Bytes that Redis has sent to anybody."""
        info: Any = self._client.info("stats")
        return int(info["total_net_output_bytes"])

    def connections(self, pids: Iterable[int]) -> dict[int, str]:
        """The connections that these processes have to this server: the local port of each, and what it is called."""
        clients: Any = self._client.client_list()
        names = {int(each["addr"].rpartition(":")[2]): str(each["name"]) for each in clients}
        inodes = {inode for pid in pids for inode in _sockets(pid)}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ports = [_port(row[1]) for row in rows if row[9] in inodes and _port(row[2]) == self._port]
        return {port: name for port in ports if (name := names.get(port, _NAME)) != _NAME}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _sockets(pid: int) -> Iterable[str]:
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # closed meanwhile
            target = os.readlink(link)
            if target.startswith("socket:["):
                yield target[len("socket:[") : -1]
