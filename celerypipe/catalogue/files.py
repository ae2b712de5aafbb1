"""Where a node's code comes from: the files that make it up, looked at again and again while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from celerypipe.catalogue import syntax
from celerypipe.catalogue.code import Located, code_and_files
from celerypipe.catalogue.project import Look

#: When a file was written, its size and its number on the disk; None: it is not there.
Stamp = tuple[int, int, int] | None

#: Seconds that an edited file must stay as it is before it is taken for whole: editors empty it first.
SETTLED = 0.1


class CodeFiles:
    """The files that a node is made of. ``beside``: one that is no code, and decides as well."""

    def __init__(self, place: Located, beside: Path | None = None) -> None:
        self.place = place
        self._beside = beside
        self._code, files = self._read()
        self.stamps = stamps_of(files)

    def written(self, now: Mapping[Path, Stamp]) -> list[Path]:
        """Return the files that are not as they were when this was asked last, if that makes other code of the node."""
        written = [file for file, stamp in self.stamps.items() if stamp != now[file]]
        if not written:
            return []
        before, (self._code, files) = self._code, self._read()
        # Of a file that is broken nobody knows what it imports: what it imported before is looked at still.
        known = {file: now[file] for file in self.stamps}
        self.stamps = {**known, **stamps_of(file for file in files if file not in known)}
        return written if self._code != before else []

    def users(self, changed: Iterable[Path]) -> frozenset[Path]:
        """Return those of its files that were ``changed``, and those that import one of them, however far."""
        project = self.place.project
        code = [file for file in self.stamps if file != self._beside and file.is_relative_to(project.folder)]
        return Look(time.time_ns()).users(project, code, [file for file in changed if file != self._beside])

    def _read(self) -> tuple[str, set[Path]]:
        code, files = code_and_files(self.place)
        if self._beside is None:
            return code, set(files)
        try:
            beside = self._beside.read_bytes().hex()
        except OSError:
            beside = ""
        return f"{code} {beside}", {*files, self._beside}


def edited(codes: Sequence[CodeFiles]) -> list[list[Path]]:
    """Return for each node the files of it that were written since this was asked last, see :meth:`CodeFiles.written`.

    All are seen at one time: several nodes may have an edited file in common.
    """
    nothing: list[list[Path]] = [[] for _ in codes]
    now = stamps_of({file for code in codes for file in code.stamps})
    if all(now[file] == stamp for code in codes for file, stamp in code.stamps.items()):
        return nothing
    time.sleep(SETTLED)
    if stamps_of(now) != now:
        return nothing  # somebody is at it; there is a next time
    return [code.written(now) for code in codes]


def stamps_of(files: Iterable[Path]) -> dict[Path, Stamp]:
    """Return what tells whether files were written since."""
    return {file: _stamp(file) for file in files}


def syntax_error(files: Iterable[Path]) -> str:
    """Return the first file that is no Python, with the line and what is wrong there; empty: all of them are."""
    for file in files:
        try:
            if file.suffix == ".py":
                syntax.statements(file.read_bytes())
        except OSError:
            continue  # who imports it says so
        except (SyntaxError, ValueError, RecursionError) as error:
            line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
            return f"{shown([file])}{line}: {type(error).__name__}: {getattr(error, 'msg', error)}"
    return ""


def shown(files: Iterable[Path]) -> str:
    """Return files as people name them: below the current folder without that; of many the first ones."""
    names = sorted(os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file) for file in files)
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} others"


def newer(stamps: Mapping[Path, Stamp], than: Mapping[Path, Stamp]) -> list[Path]:
    """Return the files of which another stamp was known, or none."""
    return [file for file, stamp in stamps.items() if file not in than or than[file] != stamp]


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
