"""An environment is built once, by uv or by venv and pip, and found again by what it was built from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from celerypipe.environments import own, pythons
from celerypipe.environments.requirements import files_in
from celerypipe.environments.stored import Made, Site, size_of
from celerypipe.environments.wanted import Environment
from celerypipe.errors import ConfigError, EnvironmentFailed

#: Lines of what the builder said that an error shows.
TAIL = 12
#: What a worker imports before anything of its user's: old packages may not fit the Python, or each other.
STARTS = "import celerypipe.cli.machines.worker, celerypipe.worker.boot"
#: Variables that would have packages go to another place, or come from there, than is meant here. Where an index is,
#: and how to log in there, is meant.
MISLEADING = frozenset(
    {
        *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX"),
        *("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON", "PIP_REQUIREMENT", "PIP_DRY_RUN"),
        *("PIP_REQUIRE_VIRTUALENV", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT"),
        *("UV_WORKING_DIRECTORY", "UV_VENV_SEED", "UV_VENV_CLEAR"),
    }
)


@dataclass(frozen=True, slots=True)
class Planned:
    """An environment as it is built here: which Python, which requirements, where."""

    environment: Environment
    python: pythons.Interpreter
    requirements: tuple[str, ...]
    place: Site

    def __str__(self) -> str:
        return f"environment {self.environment.name!r} (Python {self.python.version})"


def plan(environment: Environment, folder: Path) -> Planned:
    """Return how an environment is built, and where; ``folder``: that of all. Nothing is built yet.

    :class:`celerypipe.ConfigError` for a Python that is not there.
    """
    if environment.image:
        raise ConfigError(
            f"{environment.source}: an image is not built here, and its workers are not started from here; start one: "
            "celerypipe worker -Q QUEUE"
        )
    python = pythons.find(environment.python)
    requirements = own.needs(environment.requirements)
    content = [path.read_bytes().hex() for path in files_in(requirements)]
    told = [requirements, content, python.implementation, python.version, sysconfig.get_platform(), str(own.PACKAGE)]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    return Planned(environment, python, requirements, Site(folder, key))


def ready(planned: Planned, say: Callable[[str], None]) -> int:
    """See that it is there, and build it if it is not; return the descriptor that keeps it from being removed.

    :class:`EnvironmentFailed` shows what the builder said last. ``say``: hears what takes time.
    """
    place = planned.place
    while True:
        lock = place.share(lambda: say(f"{planned} is being built by another process; waiting for it"))
        if (made := place.made()) is not None:
            place.touch()
            _note(planned, made)
            return lock
        os.close(lock)
        with place.alone() as mine:
            if place.made() is None:
                _build(planned, mine, say)


def _note(planned: Planned, made: Made) -> None:
    """Somebody else asks for the same: they share it."""
    name, source = planned.environment.name, planned.environment.source
    if name not in made.names or source not in made.sources:
        names, sources = dict.fromkeys([*made.names, name]), dict.fromkeys([*made.sources, source])
        planned.place.complete(replace(made, names=[*names], sources=[*sources]))


def _build(planned: Planned, lock: int, say: Callable[[str], None]) -> None:
    place, began = planned.place, time.monotonic()
    uv = _uv()
    shown = ", ".join(planned.environment.requirements) or "nothing but celerypipe"
    say(f"building {planned} with {'uv' if uv else 'venv and pip'}: {shown}")
    place.clear()
    place.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        for command in _commands(planned, uv):
            _run(planned, command, lock)
        packages = next(place.folder.glob("lib/python3*/site-packages"))
        own.install(packages)
        _run(planned, [place.python, "-c", STARTS], lock, "a worker cannot start in it. Python")
    except EnvironmentFailed:
        place.clear()
        raise
    # What cannot be written is compiled by each worker, as it would be anywhere.
    compiling: Sequence[str | Path] = [place.python, "-m", "compileall", "-q", packages / own.PACKAGE.name]
    subprocess.run(compiling, env=surroundings(os.environ), capture_output=True, check=False)  # noqa: S603
    wanted = planned.environment
    made = Made(planned.python.version, list(wanted.requirements), str(own.PACKAGE), [wanted.name], [wanted.source], 0)
    place.complete(replace(made, size=size_of(place.folder)))
    say(f"built {planned} in {time.monotonic() - began:.1f} s")


def _commands(planned: Planned, uv: str) -> list[Sequence[str | Path]]:
    """Return what is run, one after the other; the requirements come by standard input."""
    folder, python = planned.place.folder, planned.place.python
    if uv:
        return [
            [uv, "venv", "--quiet", "--no-python-downloads", "--no-project", "-p", planned.python.path, folder],
            [uv, "pip", "install", "--quiet", "--no-python-downloads", "--compile-bytecode", "-p", python, "-r", "-"],
        ]
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    pip += ["-r", "/dev/stdin"]
    return [[planned.python.path, "-m", "venv", folder], pip]


def _run(
    planned: Planned, command: Sequence[str | Path], lock: int, failed: str = "it cannot be built. The builder"
) -> None:
    """``lock``: it is kept by what is started, should this process be killed over it: nobody builds beside that."""
    try:
        done = subprocess.run(  # noqa: S603  # uv, or a Python of this machine
            command,
            input="\n".join(planned.requirements) + "\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=surroundings(os.environ),
            pass_fds=(lock,),
            check=False,
        )
        said, status = done.stdout, done.returncode
    except OSError as error:
        said, status = str(error), 1
    if status:
        lines = "\n".join(said.strip().splitlines()[-TAIL:]) or f"{command[0]} ended with status {status}"
        source = f", asked for by {planned.environment.source}" if planned.environment.source else ""
        raise EnvironmentFailed(f"{planned}{source}: {failed} said last:\n{lines}")


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a builder."""
    return {name: value for name, value in environment.items() if name not in MISLEADING}


def _uv() -> str:
    """Return uv, as its package has it or the PATH; empty: there is none."""
    if find_spec("uv") is not None:
        beside = Path(sysconfig.get_path("scripts"), "uv")
        if beside.is_file():
            return str(beside)
    return shutil.which("uv") or ""
