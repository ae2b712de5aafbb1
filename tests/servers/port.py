"""A port of this machine."""

from __future__ import annotations

import contextlib
import socket


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def free_port_of_cluster() -> int:
    """One for a node of a Redis Cluster, which listens on the port that is 10,000 above, too."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.socket() as bus:
            bus.bind(("127.0.0.1", (port + 10_000) % 65_536))
            if port + 10_000 < 65_536:
                return port
