"""Which code a node is: its declared version, or a digest of its source and of what that uses of its own project.

Its own project is the folder that holds its top-level module or package, unless that is a place for installed packages:
then it is that package alone. A plugin's is the plugin's folder. Its files are found by following ``import``
statements; nothing is imported for it. Celerypipe, and what is installed beside the project, do not count.
"""

from __future__ import annotations

import sys
import time
import weakref
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from celerypipe.catalogue.project import Look, Project, is_installed, project_of
from celerypipe.catalogue.text import OURS, without_others
from celerypipe.contract.contract import Node
from celerypipe.process.version import VERSION


class Located(NamedTuple):
    """Where the source of a node is: a file of a project, the name of its module there, and its own name in that."""

    file: Path
    project: Project
    module: str
    own: str


#: Nanoseconds that one look at files is good for: a worker asks for all its marks at once.
LOOK_LASTS = 2 * 10**9

#: Class → its code, and the files that it was read from.
_known: weakref.WeakKeyDictionary[type[Node], tuple[str, frozenset[Path]]] = weakref.WeakKeyDictionary()
_looks: list[Look] = []


def code_of(node: type[Node]) -> str:
    """Return ``version <declared>``, ``celerypipe <version>`` for a built-in node, or ``source <hex>``.

    Empty: there is no source (a prompt, a C extension), or a file was written after it was imported, so that nobody
    knows what runs here. A version that is inherited does not count: this class may have another body.
    """
    declared = node.__dict__.get("version", "")
    if declared:
        return f"version {declared}"
    if _is_ours(node):
        return f"{OURS} {VERSION}"
    known = _known.get(node)
    if known is None:
        known = _known[node] = _of_source(node)
    code, files = known
    # A helper module that was edited may have been reloaded, in a notebook, without its node being made anew.
    return code if all(_written(file) <= node.defined_at for file in files) else ""


def code_at(place: Located) -> str:
    """Return what :func:`code_of` says of a node once its source is imported as it is now; nothing is imported."""
    return code_and_files(place)[0]


def code_and_files(place: Located) -> tuple[str, frozenset[Path]]:
    """Return that, and the files that it was read from."""
    hasher = blake3()
    files: set[Path] = set()
    known = _feed(hasher, Look(time.time_ns()), place, files, sys.maxsize)
    return f"source {hasher.hexdigest()}" if known else "", frozenset(files)


def meta_of(node: type[Node]) -> list[str]:
    """Return the keys of a message's meta that a node's result depends on; a text alone is one key, not its letters."""
    declared: object = node.cache_meta
    return sorted({declared} if isinstance(declared, str) else map(str, node.cache_meta))


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == OURS


def _written(file: Path) -> int:
    try:
        return file.stat().st_ctime_ns
    except OSError:
        return sys.maxsize


def _of_source(node: type[Node]) -> tuple[str, frozenset[Path]]:
    look = _look(node.defined_at)
    hasher = blake3()
    files: set[Path] = set()
    for cls in node.__mro__[:-1]:
        if _is_ours(cls):
            if cls.__module__.startswith(f"{OURS}.nodes."):
                hasher.update(f"{OURS} {VERSION}\n".encode())
            continue
        file = _file_of(cls)
        if cls is not node and (file is None or _is_installed(cls, file)):
            hasher.update(f"{cls.__qualname__} {cls.__dict__.get('version', '')}\n".encode())
        elif file is None or not _feed(hasher, look, _located(cls, file), files, node.defined_at):
            return "", frozenset()
    return f"source {hasher.hexdigest()}", frozenset(files)


def _look(defined_at: int) -> Look:
    """What was read before a class was made may not be what it was made of."""
    if not _looks or _looks[0].began < defined_at or time.time_ns() - _looks[0].began > LOOK_LASTS:
        _looks[:] = [Look(time.time_ns())]
    return _looks[0]


def _file_of(cls: type) -> Path | None:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(file).absolute() if file and file.endswith(".py") else None


def _located(cls: type, file: Path) -> Located:
    return Located(file, *project_of(sys.modules[cls.__module__], file), cls.__qualname__)


def _is_installed(cls: type, file: Path) -> bool:
    return is_installed(project_of(sys.modules[cls.__module__], file)[0].folder)


def _feed(hasher: blake3, look: Look, place: Located, files: set[Path], defined_at: int) -> bool:
    """Take in a node and all files that it uses and that are not in ``files``; False: what runs is not known."""
    file, project, name, own = place
    if file in files:
        return True
    source = look.source(file)
    files.add(file)
    if source is None or source.written > defined_at:
        return False
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    text, imports = without_others(source, own.partition(".")[0])
    used = look.used(project, package, imports)
    if any(each.file == file for each in used):  # what it uses may use the rest of its own file
        text, used = source.text, look.used(project, package, source.imports)
    hasher.update(f"own {len(text)}\n".encode() + text)
    for label, other, content in used:
        if other in files:
            continue
        if content is None or content.written > defined_at:
            return False
        files.add(other)
        hasher.update(f"{label} {content.digest}\n".encode())
    return True
