"""The environments that were built, each in a folder of its own: one that is in use is never removed.

``KEY/`` is the environment, complete once it holds ``MARKER``; ``KEY.lock`` is locked by whoever builds it, and shared
by all who use it. The kernel frees a lock when its processes end, however they do.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

#: Written last: an environment without it was not built to its end.
MARKER = "celerypipe.json"


@dataclass(frozen=True, slots=True)
class Made:
    """What stands in the marker. ``sources``: who asked for it."""

    python: str
    requirements: list[str]
    package: str
    names: list[str]
    sources: list[str]
    size: int


@dataclass(frozen=True, slots=True)
class Site:
    """Where one environment is, or will be; ``beside``: the folder of all."""

    beside: Path
    key: str

    @property
    def folder(self) -> Path:
        """Its own."""
        return self.beside / self.key

    @property
    def _lock(self) -> Path:
        return self.beside / f"{self.key}.lock"

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    def made(self) -> Made | None:
        """Return what it is; None: it is not there, or not whole."""
        try:
            made = Made(**json.loads((self.folder / MARKER).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return made if self.python.exists() and Path(made.package).exists() else None

    def complete(self, made: Made) -> None:
        """Say that it is whole."""
        written = self.folder / f"{MARKER}.{os.getpid()}"
        written.write_text(json.dumps(asdict(made), indent=2), encoding="utf-8")
        written.replace(self.folder / MARKER)

    def clear(self) -> None:
        """Remove what is there of it; the caller has it locked for itself."""
        (self.folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def share(self, waits: Callable[[], None]) -> int:
        """Return what says that it is in use until its last copy is closed: a descriptor.

        ``waits`` is called before it is waited for who builds it.
        """
        try:
            return self._locked(fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            return self._locked(fcntl.LOCK_SH)

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Have it for oneself inside the block; waits for who builds or uses it."""
        lock = self._locked(fcntl.LOCK_EX)
        try:
            yield lock
        finally:
            os.close(lock)

    def is_busy(self) -> bool:
        """Does somebody use or build it now?"""
        return not self._while_free(lambda: None)

    def touch(self) -> None:
        """Remember that it is used now."""
        os.utime(self._lock)

    def used(self) -> float:
        """When it was used last."""
        try:
            return self._lock.stat().st_mtime
        except OSError:
            return 0.0

    def remove(self) -> bool:
        """Remove it; False: it is in use."""

        def forget() -> None:
            self.clear()
            self._lock.unlink(missing_ok=True)

        return self._while_free(forget)

    def _while_free(self, action: Callable[[], None]) -> bool:
        try:
            lock = self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            action()
        finally:
            os.close(lock)
        return True

    def _locked(self, how: int) -> int:
        self.beside.mkdir(parents=True, exist_ok=True)
        while True:
            lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(lock, how)
                if os.path.samestat(os.fstat(lock), os.stat(self._lock)):
                    return lock
            except FileNotFoundError:  # it was removed meanwhile: the lock of nothing
                pass
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)


@dataclass(frozen=True, slots=True)
class StoredEnvironment:
    """One that is there. ``used``: when a worker started in it last, in seconds; ``busy``: one runs in it now."""

    place: Site
    used: float
    busy: bool
    made: Made

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return self.place.key

    @property
    def title(self) -> str:
        """What it is called by those who want it."""
        return ", ".join(self.made.names)


def environments_in(folder: Path) -> list[StoredEnvironment]:
    """Return those that are whole, the one used last first."""
    places = [Site(folder, file.parent.name) for file in folder.glob(f"*/{MARKER}")]
    there = [(place, made) for place in places if (made := place.made()) is not None]
    found = [StoredEnvironment(each, each.used(), each.is_busy(), made) for each, made in there]
    return sorted(found, key=lambda each: each.used, reverse=True)


def leftovers_in(folder: Path) -> list[Site]:
    """Return those that were not built to their end, or whose Python or celerypipe is gone."""
    places = [Site(folder, path.name) for path in folder.glob("*") if path.is_dir()]
    return [each for each in places if each.made() is None]


def size_of(folder: Path) -> int:
    """Return the bytes that a folder takes; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for path, _, names in os.walk(folder):
        for name in names:
            stat = os.lstat(os.path.join(path, name))
            seen[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(seen.values())
