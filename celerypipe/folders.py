"""Folders as people write them: with ``~``, ``..``, a slash at the end, through a link. Each is still one folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def path_of(text: Path | str) -> Path:
    """Return the path that somebody wrote; a ``~`` at its beginning is a home, as in a shell."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no such user
        return Path(text)


def distinct(folders: Iterable[Path]) -> tuple[Path, ...]:
    """Return each folder once, by its first spelling and in that order."""
    found: dict[object, Path] = {}
    for folder in folders:
        found.setdefault(_itself(folder), folder)
    return tuple(found.values())


def is_within(place: Path, folder: Path) -> bool:
    """Is a place below a folder, or that folder itself, links followed? Also where a disk knows no case."""
    place, folder = place.resolve(), folder.resolve()
    if place.is_relative_to(folder):
        return True
    itself = _itself(folder)
    return any(_itself(above) == itself for above in (place, *place.parents))


def _itself(folder: Path) -> object:
    """What tells a folder from all others: what the disk says, or how it is spelt in full where there is none yet."""
    try:
        found = os.stat(folder)
    except (OSError, ValueError):
        return os.path.realpath(folder)
    return found.st_dev, found.st_ino
