"""Which environment a queue wants: tables of its ``worker_configs/<queue>.toml``, read and checked.

``[environment]`` is that of the queue itself, ``[environments.asr]`` one that nodes ask for by name: their queue is
called ``gpu+asr``, and it is served by a worker of the same file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celerypipe.definition.names import environment_of, wrong_environment
from celerypipe.environments.requirements import in_full, lines_of
from celerypipe.errors import ConfigError, did_you_mean
from celerypipe.folders import path_of

#: The file with further ``[environments.NAME]`` for all queues, as a host says it to its workers.
LIST_VARIABLE = "CELERYPIPE_ENVIRONMENT_LIST"
#: A file of requirements: the environment of whatever this process serves.
ISOLATED_VARIABLE = "CELERYPIPE_ISOLATED"

#: What an image may be called: no option of the program that runs it.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", re.ASCII)
#: The keys of a table, and what they mean.
KEYS = {
    "requirements": 'what pip would install: a list such as ["numpy<2"], or the name of a file beside this one',
    "python": 'the version of Python, such as "3.12", or the path of one',
    "image": 'in place of both: a container image that has celerypipe in it, such as "registry.example/asr:3"',
}


@dataclass(frozen=True, slots=True)
class Environment:
    """Packages and a Python for a worker, or an image with both.

    ``requirements``: lines as pip and uv read them. ``python``: a version or a path; None: the Python that runs.
    ``source``: who says so, for people.
    """

    name: str
    requirements: tuple[str, ...]
    python: str | None = None
    source: str = ""
    image: str = ""


def listed(content: Mapping[str, Any], path: Path, text: str) -> dict[str, Environment]:
    """Return the environments that a file has, by name; that of its queue itself has none.

    ``content``: of the whole file. :class:`ConfigError` names file, line and cure.
    """
    tables = {"environment": content["environment"]} if "environment" in content else {}
    several = content.get("environments", {})
    if not isinstance(several, dict):
        raise _wrong(path, text, "environments", "write a table for each: [environments.NAME]")
    tables |= {f"environments.{name}": table for name, table in several.items()}
    return {place.partition(".")[2]: _read(place, table, path, text) for place, table in tables.items()}


def wanted_by(queue: str, folder: Path, more: Path | None = None) -> Environment | None:
    """Return the environment of a worker of a queue; None: it runs with what is installed here.

    ``folder``: that of the workers' files; ``more``: a file with further ones, where the environment names none.
    :class:`ConfigError` for a name that nothing knows.
    """
    if requirements := os.environ.get(ISOLATED_VARIABLE):
        return Environment(queue, lines_of(Path(requirements)), None, requirements)
    own, name = environment_of(queue)
    files = [folder / f"{own}.toml"]
    if name and (said := os.environ.get(LIST_VARIABLE) or more):
        files.append(Path(said))
    known: dict[str, Environment] = {}
    for file in files:
        known = {**(listed_in(file) if file.is_file() else {}), **known}
    if name and name not in known:
        names = sorted(filter(None, known))
        there = f"there are {', '.join(names)}" if names else "there is none"
        raise ConfigError(
            f"queue {queue!r}: no [environments.{name}] in {' or '.join(map(str, files))}"
            f"{did_you_mean(name, names)}; {there}; write one, with requirements = [...]"
        )
    return known.get(name)


def listed_in(path: Path) -> dict[str, Environment]:
    """As :func:`listed`, of a file."""
    try:
        text = path.read_text(encoding="utf-8")
        return listed(tomllib.loads(text), path, text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _read(place: str, table: Any, path: Path, text: str) -> Environment:
    name = place.partition(".")[2]
    if name and (complaint := wrong_environment(name)):
        raise _wrong(path, text, place, complaint)
    if not isinstance(table, dict):
        raise _wrong(path, text, place, f"[{place}] must be a table, with requirements = [...]")
    for key in table:
        if key not in KEYS:
            raise _wrong(path, text, f"{place}.{key}", f"unknown key {key!r} in [{place}]{did_you_mean(key, KEYS)}")
    source = f"{path.absolute()} [{place}]"
    if "image" in table:
        return Environment(name or path.stem, (), None, source, _image(place, table, path, text))
    python = table.get("python")
    if python is not None and (not isinstance(python, str) or not python):
        cure = f'write python = "{python}"' if isinstance(python, float | int) else 'write python = "3.12", or a path'
        raise _wrong(path, text, f"{place}.python", f"[{place}] python must be text; {cure}")
    if python is not None and "/" in python:
        python = str((path.parent / path_of(python)).absolute())
    return Environment(name or path.stem, _requirements(place, table, path, text), python, source)


def _image(place: str, table: Mapping[str, Any], path: Path, text: str) -> str:
    image = table["image"]
    if not isinstance(image, str) or not _IMAGE.fullmatch(image):
        cure = 'write its name, such as "registry.example/asr:3"'
        raise _wrong(path, text, f"{place}.image", f"[{place}] image: {image!r} is no name of an image; {cure}")
    if other := sorted(table.keys() - {"image"}):
        cure = "what an image has in it was said when it was made; take one of both away"
        raise _wrong(path, text, f"{place}.{other[0]}", f"[{place}] has image and {' and '.join(other)}: {cure}")
    return image


def _requirements(place: str, table: Mapping[str, Any], path: Path, text: str) -> tuple[str, ...]:
    said, at = table.get("requirements", []), f"{place}.requirements"
    if isinstance(said, str):
        try:
            return lines_of(path.absolute().parent / path_of(said))
        except ConfigError as error:
            cure = "" if said.endswith(".txt") else f'; a list is written requirements = ["{said}"]'
            raise _wrong(path, text, at, f"[{place}] requirements: {error}{cure}") from None
    if not isinstance(said, list) or not all(isinstance(line, str) and line.strip() for line in said):
        raise _wrong(path, text, at, f"[{place}] requirements must be {KEYS['requirements'].partition(': ')[2]}")
    if not said and "python" not in table:
        raise _wrong(path, text, place, f'[{place}] asks for nothing; write requirements = ["numpy<2"], or a python')
    return tuple(dict.fromkeys(in_full(line.strip(), path.absolute().parent) for line in said))


def _wrong(path: Path, text: str, place: str, complaint: str) -> ConfigError:
    return ConfigError(f"{path}:{line_of(place, text)}: {complaint}")


def line_of(place: str, text: str) -> int:
    """Return the line of a key of a TOML text, or of the header of its table; 1 if it stands in another form."""
    table, _, key = place.rpartition(".")
    current = ""
    header = 1
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            current = found[1].replace('"', "").replace("'", "")
            if current == place:
                return number
            header = number if current == table else header
        elif current == table and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line):
            return number
    return header
