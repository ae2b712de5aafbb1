"""``python -m tests.matrix``: the part of the suite that Redis and Python decide, with each of them that is to be had.

What this machine lacks is skipped, with the reason. Exit status 1: tests failed somewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from tests.matrix.lacking import Lacking
from tests.matrix.pythons import OTHERS, environment
from tests.matrix.servers import SERVERS, version_of
from tests.servers import ROOT

#: Where servers and environments are kept from one time to the next; ``make clean`` removes it.
FOLDER = ROOT / ".venv-matrix"
#: What a server decides; a Python decides the units besides.
ON_SERVERS = (
    *(f"tests/integration/{room}" for room in ("cache", "celery", "heartbeat", "mailbox", "redis")),
    *("tests/integration/runner/carrier", "tests/integration/worker/activation", "tests/faults/test_redis_faults.py"),
)
ON_PYTHONS = ("tests/unit", *ON_SERVERS)


class Cell(NamedTuple):
    """What is tried: tests, with an interpreter and, where it comes first on PATH, a server."""

    name: str
    python: Path
    server: Path
    tests: tuple[str, ...]


def cells(only: str) -> Iterator[Cell | str]:
    """Each of them, or why there is none."""
    here = Path(sys.executable)
    for name, find in SERVERS.items():
        if only in name:
            try:
                server = find(FOLDER / name.replace(" ", "-"))
                yield Cell(f"{version_of(server)}, Python {sys.version.split()[0]}", here, server, ON_SERVERS)
            except Lacking as why:
                yield f"{name}: {why}"
    for version in OTHERS:
        if only in f"Python {version}":
            try:
                server = SERVERS["Redis 6.2"](FOLDER / "Redis-6.2")
                python = environment(version, FOLDER / version)
                yield Cell(f"Python {version}, {version_of(server)}", python, server, ON_PYTHONS)
            except Lacking as why:
                yield f"Python {version}: {why}"


def tried(cell: Cell, arguments: tuple[str, ...]) -> bool:
    """Run its tests, and say what came of it."""
    path = f"{cell.server.parent}{os.pathsep}{os.environ['PATH']}"
    command = [cell.python, "-m", "pytest", "-q", "-n", "6", "--dist", "loadfile", *cell.tests, *arguments]
    click.echo(f"== {cell.name}")
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, check=False)
    click.echo(f"== {cell.name}: {'failed' if done.returncode else 'passed'}, {time.monotonic() - began:.0f} s\n")
    return not done.returncode


@click.command()
@click.option("--only", default="", metavar="TEXT", help="Only what has it in its name: 'Redis 7', Valkey, 3.12.")
@click.argument("arguments", nargs=-1)
def main(only: str, arguments: tuple[str, ...]) -> None:
    """Run them one after the other; ARGUMENTS are for pytest."""
    FOLDER.mkdir(exist_ok=True)
    failed, lacking, passed = [], [], []
    for cell in cells(only):
        if isinstance(cell, str):
            lacking.append(cell)
            click.echo(f"== skipped: {cell}\n")
        else:
            (passed if tried(cell, arguments) else failed).append(cell.name)
    for what, names in (("passed", passed), ("skipped", lacking), ("FAILED", failed)):
        for name in names:
            click.echo(f"{what:8}{name}")
    sys.exit(bool(failed) or not passed)


main()
