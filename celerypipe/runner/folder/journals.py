"""The journals in a pipeline's folder: those of runs that did not end well, and of runs that are going on."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from celerypipe.runner.folder.journal import FILE, JournalContent, NoJournal, head_of, locked, parse, remove

#: So many are kept; older ones go.
MOST = 20


@dataclass(frozen=True, slots=True)
class KeptJournal:
    """A journal that lies in a folder: where, what it says, and whether its run is still going on."""

    place: Path
    content: JournalContent
    busy: bool


def kept(folder: Path) -> tuple[list[KeptJournal], list[str]]:
    """Return the journals in a folder, the newest first, and a sentence about each file that is none."""
    found, strange = [], []
    for path in _files(folder):
        try:
            found.append(KeptJournal(path.parent, parse(path.read_bytes()), _is_busy(path)))
        except NoJournal as error:
            strange.append(f"{path} is no journal: {error}")
        except OSError as error:
            strange.append(f"{path} cannot be read: {error.strerror}")
    return sorted(found, key=lambda each: each.content.started, reverse=True), strange


def _files(folder: Path) -> list[Path]:
    """The files that may be journals; a link is none, so that nothing outside the folder is touched."""
    return [path for path in sorted(folder.glob(f"*/{FILE}")) if not path.parent.is_symlink()]


def _is_busy(path: Path) -> bool:
    try:
        os.close(locked(path))
    except BlockingIOError:
        return True
    return False


def prune(folder: Path, most: int = MOST) -> None:
    """Remove the oldest journals beyond so many; those of runs that are going on stay, and so does what is none."""
    ages: list[tuple[float, Path]] = []
    for path in _files(folder):
        with contextlib.suppress(NoJournal, OSError):
            ages.append((head_of(path).started, path))
    for _, path in sorted(ages, reverse=True)[most:]:
        with contextlib.suppress(OSError):
            if not _is_busy(path):
                remove(path.parent)
