"""The project that a module belongs to: which files its imports lead to, without importing anything."""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from celerypipe.catalogue.text import Import, SourceText, source_of

#: How :mod:`celerypipe.catalogue.modules` names the folder of a plugin; the rest differs from place to place.
PLUGIN = "celerypipe_plugin_"


@dataclass(frozen=True, slots=True)
class Project:
    """Where the modules of a project are: ``top`` (all, if empty) lies in ``folder``, or is it if ``is_folder``."""

    folder: Path
    top: str = ""
    is_folder: bool = False

    def files(self, name: str) -> Iterator[Path]:
        """Yield the files that importing a module runs, its packages first; what is not of this project has none."""
        first, *rest = name.split(".")
        if first in ("", "celerypipe") or self.top not in ("", first):
            return
        place = self.folder
        for part in rest if self.is_folder else (first, *rest):
            place /= part
            file = _file_at(place)
            if file is not None:
                yield file
            if not place.is_dir():
                return

    def label(self, file: Path) -> str:
        """Return what a file is called in a digest: the same wherever the project is."""
        return file.relative_to(self.folder).as_posix()


def project_of(module: ModuleType, file: Path) -> tuple[Project, str]:
    """Return the project of a module, and the module's own name in it."""
    spec = module.__spec__
    name = spec.name if spec is not None else module.__name__
    top = name.partition(".")[0]
    if top.startswith(PLUGIN):
        return Project(Path(sys.modules[top].__path__[0]), top, is_folder=True), name
    return project_at(file.stem if name == "__main__" else name, file)


def project_at(name: str, file: Path) -> tuple[Project, str]:
    """Return the project of a module by its name and file, and the module's own name in it; not for plugins."""
    parts = name.split(".")
    above = parts if file.name == "__init__.py" else parts[:-1]
    if [each.name for each in reversed(file.parents[: len(above)])] != above:
        return Project(file.parent, file.stem), file.stem  # loaded by hand under another name
    home = file.parents[len(above)]
    return Project(home, parts[0] if is_installed(home) else ""), name


def is_installed(folder: Path) -> bool:
    """Is it a place where packages are installed, or Python's own?"""
    return folder.resolve() in _installed() or folder.name in ("site-packages", "dist-packages")


@functools.cache
def _installed() -> frozenset[Path]:
    found = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    return frozenset(Path(each).resolve() for each in found)


class Used(NamedTuple):
    """A file that a module uses, as it is called in a digest; without a source it cannot be read."""

    label: str
    file: Path
    source: SourceText | None


@dataclass(slots=True)
class Look:
    """One look at the files of projects: each is looked for and read once."""

    began: int
    _sources: dict[Path, SourceText | None] = field(default_factory=dict)
    _found: dict[tuple[Project, str], tuple[Path, ...]] = field(default_factory=dict)
    _used: dict[tuple[Project, str, tuple[Import, ...]], tuple[Used, ...]] = field(default_factory=dict)

    def source(self, file: Path) -> SourceText | None:
        if file not in self._sources:
            self._sources[file] = source_of(file)
        return self._sources[file]

    def used(self, project: Project, package: str, imports: tuple[Import, ...]) -> tuple[Used, ...]:
        """Return all files of a project that a module of a package uses, in the order of their labels."""
        key = (project, package, imports)
        if key not in self._used:  # nodes of one module have most of it in common
            found = self._followed(project, package, imports)
            files = sorted(found, key=project.label)
            self._used[key] = tuple(Used(project.label(file), file, found[file]) for file in files)
        return self._used[key]

    def _followed(self, project: Project, package: str, imports: Iterable[Import]) -> dict[Path, SourceText | None]:
        """What imports lead to, from one file to the next."""
        found: dict[Path, SourceText | None] = {}
        waiting = [*self._files(project, package), *self._imported(project, package, imports)]
        while waiting:
            file = waiting.pop()
            if file in found:
                continue
            found[file] = source = self.source(file)
            if source is not None:
                waiting += self._imported(project, _package_of(project, file), source.imports)
        return found

    def users(self, project: Project, files: Iterable[Path], changed: Iterable[Path]) -> frozenset[Path]:
        """Return those of a project's files that were ``changed``, and those that import one of them, however far."""
        found, left = set(changed), {file: set(self._of_file(project, file)) for file in files}
        while more := {file for file, used in left.items() if file not in found and not used.isdisjoint(found)}:
            found |= more
        return frozenset(found)

    def _of_file(self, project: Project, file: Path) -> Iterator[Path]:
        source = self.source(file)
        return self._imported(project, _package_of(project, file), source.imports if source is not None else ())

    def _imported(self, project: Project, package: str, imports: Iterable[Import]) -> Iterator[Path]:
        for each in imports:
            base = each.module
            if each.level:
                parts = package.split(".")[: len(package.split(".")) - each.level + 1]
                base = ".".join([*parts, base] if base else parts)
            if not base:
                continue
            yield from self._files(project, base)
            for name in each.names:
                yield from self._files(project, f"{base}.{name}")

    def _files(self, project: Project, name: str) -> tuple[Path, ...]:
        key = (project, name)
        if key not in self._found:
            self._found[key] = tuple(project.files(name))
        return self._found[key]


def _file_at(place: Path) -> Path | None:
    for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        if file.is_file():
            return file
    compiled = (place.with_name(f"{place.name}{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((file for file in compiled if file.is_file()), None)


def _package_of(project: Project, file: Path) -> str:
    """The package that relative imports in a file begin from."""
    parts = file.parent.relative_to(project.folder).parts
    return ".".join((project.top, *parts) if project.is_folder else parts)
