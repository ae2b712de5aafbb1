"""A TCP port to listen on."""

from __future__ import annotations

import socket
from typing import Any

from celerypipe.errors import ConfigError


def wanted(name: str, port: Any) -> int:
    """Return the port number, 0 for ``"auto"`` (any free one); ValueError says what to write instead."""
    if port == "auto":
        return 0
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f'{name}: {port!r} is no port; write a number from 1 to 65535, or "auto" for any free one')
    return port


def listen(host: str, port: int, *, argument: str) -> socket.socket:
    """Return a socket that listens there; :class:`ConfigError` names ``argument`` when the port is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            f'stop what is using it, or write "{argument}": "auto" for any free port'
        ) from error
