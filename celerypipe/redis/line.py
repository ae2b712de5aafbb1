"""A line to Redis that was idle may be dead: what its socket does about that, and how to tell before it is used.

Redis itself (``timeout``), a proxy or a router closes what nobody used for a while, and not each of them says so.
"""

from __future__ import annotations

import socket
from typing import Any

import redis

#: What the socket of a line does: after two silent seconds it asks each second, and where nothing that was sent is
#: heard for five, the line is broken. A Redis that stands still is no such case: its machine hears.
KEEP_ALIVE: dict[int, int] = {
    getattr(socket, name): value
    for name, value in {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 5000}.items()
    if hasattr(socket, name)
}

#: Seconds that a line was idle after which it is looked at, and after which Redis is asked besides: behind a proxy
#: that fell silent the socket hears somebody.
LOOK_AFTER = 0.05
ASK_AFTER = 5.0
#: Seconds that the answer may take.
PATIENCE = 2.0

PING = [b"*1\r\n$4\r\nPING\r\n"]


def drop_if_dead(line: Any, idle: float) -> None:
    """Disconnect redis-py's connection if nobody is there at its other end, after so many idle seconds.

    Nothing of ours is on its way then, so that whatever is asked next may go along a new one.
    """
    if line.is_connected and not _lives(line, idle):
        line.disconnect()


def _lives(line: Any, idle: float) -> bool:
    try:
        if line.can_read(0):  # it was closed, or says what nobody asked for
            return False
        if idle < ASK_AFTER:
            return True
        line.send_packed_command(PING, check_health=False)
        return bool(line.can_read(min(PATIENCE, line.socket_timeout)) and line.read_response() == b"PONG")
    except (redis.RedisError, OSError):
        return False
