"""Which Pythons this machine has: each is run before it counts, for what is called python3.13 may be none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from celerypipe.errors import ConfigError

#: The oldest one that celerypipe runs with, as setup.py says.
OLDEST = (3, 11)
#: Seconds that one has to say which it is.
PATIENCE = 20.0
_ASKED = "import sys; print(sys.implementation.name, '.'.join(map(str, sys.version_info[:3])))"
_VERSION = re.compile(r"(?:python)?(3(?:\.\d+){0,2})")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that runs. ``version``: such as 3.12.1."""

    path: str
    version: str
    implementation: str = "cpython"

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its version, to compare."""
        return tuple(map(int, self.version.split(".")))

    def __str__(self) -> str:
        return f"Python {self.version} ({self.path})"


def find(wanted: str | None) -> Interpreter:
    """Return the Python of this version, or of this path; None: the one that runs.

    :class:`ConfigError` says which there are.
    """
    found = _running() if wanted is None else _named(wanted)
    if found.numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ConfigError(f"python = {wanted!r}: {found} is too old for celerypipe; it needs {oldest} or newer")
    return found


def all_there() -> list[Interpreter]:
    """Return those that this machine has and celerypipe runs with, the newest first, each version once."""
    there = {each.version: each for each in reversed([_running(), *filter(None, map(ask, _places()))])}
    fit = [each for each in there.values() if each.numbers >= OLDEST]
    return sorted(fit, key=lambda each: each.numbers, reverse=True)


@cache
def ask(path: Path) -> Interpreter | None:
    """Have one say which it is; None: it does not run."""
    try:
        done = subprocess.run(  # noqa: S603  # -I: nothing of the environment, and no folder of a project
            [path, "-I", "-S", "-c", _ASKED], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        implementation, version = done.stdout.split()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Interpreter(str(path.absolute()), version, implementation)


def _running() -> Interpreter:
    version = ".".join(map(str, sys.version_info[:3]))
    return Interpreter(sys.executable, version, sys.implementation.name)


def _named(wanted: str) -> Interpreter:
    if "/" in wanted:
        if (found := ask(Path(wanted))) is None:
            raise ConfigError(f"python = {wanted!r} does not run; {_cure()}")
        return found
    version = _VERSION.fullmatch(wanted)
    if version is None:
        raise ConfigError(f'python = {wanted!r} is no version; write one such as "3.12", or the path of a Python')
    if is_of(_running().version, version[1]):
        return _running()
    for there in filter(None, map(ask, _places(version[1]))):
        if is_of(there.version, version[1]):
            return there
    raise ConfigError(f"python = {wanted!r}: this machine has no Python {version[1]}; {_cure()}")


def _cure() -> str:
    there = ", ".join(map(str, all_there()))
    return f"it has {there}; write one of these, or install it (uv python install 3.12, pyenv install 3.12)"


def is_of(version: str, wanted: str) -> bool:
    """Is a version the wanted one, or one of it: 3.12.1 of 3.12?"""
    return version.split(".")[: wanted.count(".") + 1] == wanted.split(".")


def _places(version: str = "") -> Iterator[Path]:
    """Return where one of this version may be: in the PATH, in the folders of pyenv and of uv."""
    seen: set[str] = set()
    for path in _spelt(version):
        real = os.path.realpath(path)
        if real not in seen and os.access(path, os.X_OK):
            seen.add(real)
            yield path


def _spelt(version: str) -> Iterator[Path]:
    minor = ".".join(version.split(".")[:2])
    names = [f"python{minor}"] if minor.count(".") else [f"python3.{number}" for number in range(20, OLDEST[1] - 1, -1)]
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    said = dict.fromkeys(filter(None, os.environ.get("PATH", "").split(os.pathsep)))
    folders = [Path(each) for each in said if Path(each) != pyenv / "shims"]  # each leads to one below
    yield from (folder / name for folder in folders for name in names)
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    for found in (*sorted((pyenv / "versions").glob("*"), reverse=True), *sorted(uv.glob("*"), reverse=True)):
        if not (number := re.search(r"\d+\.\d+(\.\d+)?", found.name)) or is_of(number[0], version or number[0]):
            yield found / "bin" / "python3"
    yield from (folder / "python3" for folder in folders)
