"""The files that a source reads: named one by one, or found in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence, Set
from pathlib import Path

from celerypipe.contract.positions import Position, Positions
from celerypipe.contract.reach import Reach
from celerypipe.errors import ConfigError
from celerypipe.folders import path_of


class Selection:
    """Files in their order, and which of them are still wanted; each is known by its path when a run is resumed.

    ``paths``: the files; ``folder``: instead of them, a folder whose files are sorted by name; ``pattern``: which of
    them, as for ``Path.glob``. Without one these are the files with one of the ``suffixes`` (none given: all). Hidden
    ones, whose names begin with a dot, as those of macOS (``._take.wav``) do, and those in hidden folders are left out,
    as in a shell, unless a part of the pattern begins with a dot. A link that leads nowhere is a file that cannot be
    read.
    ``what``: what the files should be, as errors say it ("picture").
    """

    def __init__(
        self,
        paths: Sequence[str] | None,
        folder: str | None,
        pattern: str | None,
        *,
        what: str,
        suffixes: Set[str] = frozenset(),
    ) -> None:
        if (paths is None) == (folder is None):
            raise ValueError("paths and folder: give one of them")
        if isinstance(paths, str):
            raise TypeError(f"paths: {paths!r} is one text; write a list of paths")
        if pattern is not None and folder is None:
            raise ValueError("pattern: goes with 'folder', not with 'paths'")
        if pattern is not None and (not pattern or Path(pattern).is_absolute()):
            raise ValueError(f"pattern: {pattern!r} is none for files below the folder; write one such as '*.*'")
        self.paths = [path_of(path) for path in paths or ()]
        self.folder = None if folder is None else path_of(folder)
        self.pattern = pattern
        self.names: list[str] = []
        self._what = what
        self._suffixes = suffixes
        self._through: Container[Position] = Positions()
        #: Set when no further file is wanted.
        self.stopped = False

    def find(self, reach: Reach) -> None:
        """Look which files there are; :class:`ConfigError` names the folder or those that are missing."""
        if self.folder is not None:
            self.paths = self._found(self.folder, reach)
        for path in self.paths:
            reach.require(path)
        missing = [str(path) for path in self.paths if not path.is_file()]
        if missing and self.folder is None:
            raise ConfigError(f"no such file: {', '.join(missing)} (from {Path.cwd()}); correct 'paths'")
        self.names = _apart(self.paths)

    def seek(self, through: Container[Position]) -> None:
        """Leave out what is at these positions."""
        self._through = through

    def left_out(self, position: str) -> bool:
        """Was this one worked on before?"""
        return position in self._through

    def total(self) -> int:
        """The number of files, without those that are left out."""
        return sum(not self.left_out(name) for name in self.names)

    def wanted(self) -> Iterator[int]:
        """Yield the numbers of the files that are not left out, until told to stop."""
        for index, name in enumerate(self.names):
            if self.stopped:
                return
            if not self.left_out(name):
                yield index

    def stop(self) -> None:
        """Yield no further file."""
        self.stopped = True

    def _found(self, folder: Path, reach: Reach) -> list[Path]:
        reach.require(folder)
        if not folder.is_dir():
            raise ConfigError(f"no such folder: {folder} (from {Path.cwd()}); make it, or correct 'folder'")
        found = folder.glob(self.pattern or "*")
        paths = sorted(path for path in found if path.is_file() or (path.is_symlink() and not path.exists()))
        if not _is_hidden(Path(self.pattern or "*")):
            paths = [path for path in paths if not _is_hidden(path.relative_to(folder))]
        if self.pattern is None and self._suffixes:
            paths = [path for path in paths if path.suffix.lower() in self._suffixes]
        if not paths:
            few = f" with a {self._what}'s suffix ({', '.join(sorted(self._suffixes))})" if self._suffixes else ""
            none = f"no file matches {self.pattern!r}" if self.pattern else f"no file{few}"
            raise ConfigError(f"{none} in the folder {str(folder)!r}; correct 'folder' or 'pattern'")
        return paths


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") and part != ".." for part in path.parts)


def _apart(paths: Sequence[Path]) -> list[str]:
    """Return the paths as texts, one that is there several times with a number, behind what no path has."""
    seen: Counter[str] = Counter()
    names = []
    for path in map(str, paths):
        seen[path] += 1
        names.append(path if seen[path] == 1 else f"{path}\0{seen[path]}")
    return names
