"""Large bytes through ``/dev/shm``, where runner and worker live on one machine; Redis carries only the reference.

A run has a folder there, which its runner makes and removes. A worker proves that it sees the same memory: it keeps a
file with a random text there, and says the text in its presence. Folder and file are locked for as long as their
owner lives; what a dead one left is removed by whoever comes next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from celerypipe.mailbox.blob.maps import Maps, write_all
from celerypipe.process import forks

#: Where memory is shared between processes on Linux; elsewhere nothing is shared.
ROOT = Path("/dev/shm")  # noqa: S108  # that is where it is; names are random, modes 0700 and 0600
_RUN, _PROOF = "celerypipe-run-", "celerypipe-proof-"
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")
_BLOB = re.compile(r"[0-9a-f]{18}")
_LOCK = "lock"
#: A lock file that is younger than so many seconds may not be locked yet.
_YOUNG = 1.0
#: Ends the name of a folder that is being removed.
_GONE = "-gone"

#: Files of at least this size are kept when nobody needs them, and written again: pages that are there already take a
#: quarter of the time of new ones. Bytes kept of each size, and how many sizes.
RECYCLED_FROM = 256 * 1024
_KEPT_BYTES = 64 * 1024 * 1024
_KEPT_SIZES = 4
_FREE = "free"


class SharedFolder:
    """The blobs of one run in shared memory. A reference is ``/<name>:<size>``.

    ``keep_maps`` of files that come round again: they count as memory that the process takes.
    """

    def __init__(self, path: Path, lock: int = -1, *, keep_maps: bool = True) -> None:
        self._path = path
        self._lock = lock
        self._reading, self._writing = Maps(writing=False, keep=keep_maps), Maps(writing=True, keep=keep_maps)
        if lock >= 0:
            forks.keep(self)

    @classmethod
    def make(cls, run: str) -> SharedFolder | None:
        """Make the folder of a run; None where that cannot be."""
        sweep()
        path = ROOT / f"{_RUN}{run}"
        try:
            path.mkdir(mode=0o700)
            (path / _FREE).mkdir()
            return cls(path, _locked(path / _LOCK))
        except OSError:
            return None

    @classmethod
    def find(cls, run: str, *, keep_maps: bool = True) -> SharedFolder | None:
        """Return the folder of a run if it is here and nobody else's; ``run`` may come from a stranger."""
        path = ROOT / f"{_RUN}{run}"
        with contextlib.suppress(OSError):
            if _NAME.fullmatch(run) and _is_ours(path):
                return cls(path, keep_maps=keep_maps)
        return None

    def write(self, segments: Iterable[bytes | memoryview]) -> str | None:
        """Store bytes and return the reference; None if there is no room, or the run is over."""
        pieces = [memoryview(segment).cast("B") for segment in segments if len(segment)]
        name = secrets.token_hex(9)
        path = self._path / name
        size = sum(piece.nbytes for piece in pieces)
        new = 0 if self._reuse(size, path) else os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | new, 0o600)
            try:
                if new or not self._writing.write(descriptor, size, pieces):
                    write_all(descriptor, pieces)
            finally:
                os.close(descriptor)
        except OSError:
            path.unlink(missing_ok=True)
            return None
        return f"/{name}:{size}"

    def read(self, reference: str) -> memoryview | bytes | None:
        """Return the bytes as a view on shared memory, which outlives the file, or as a copy; None if they are gone."""
        name, _, size = reference[1:].partition(":")
        if not _BLOB.fullmatch(name):
            return None
        try:
            descriptor = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
            if found.st_size != int(size):
                return None
            view = self._reading.view(descriptor, found, again=found.st_size >= RECYCLED_FROM)
            if view is None:
                with open(descriptor, "rb", closefd=False) as file:
                    return file.read()
            return view
        except (OSError, ValueError):
            return None
        finally:
            os.close(descriptor)

    def delete(self, reference: str) -> None:
        """Remove a blob that nobody needs any more; who maps it keeps it."""
        name = reference[1:].partition(":")[0]
        if _BLOB.fullmatch(name):
            with contextlib.suppress(OSError):
                number = os.lstat(self._path / name).st_ino
                (self._path / name).unlink()
                self._reading.forget(number)
                self._writing.forget(number)

    def recycle(self, reference: str) -> None:
        """Keep the file of a blob that nobody needs and nobody maps any more, for another blob of its size."""
        name, _, size = reference[1:].partition(":")
        if not _BLOB.fullmatch(name) or not size.isdecimal() or int(size) < RECYCLED_FROM:
            self.delete(reference)
            return
        free = self._path / _FREE / size
        try:
            if not free.is_dir():
                sizes = sorted(os.scandir(free.parent), key=lambda entry: entry.stat().st_mtime)
                for unused in sizes[: len(sizes) - _KEPT_SIZES + 1]:
                    shutil.rmtree(unused.path, ignore_errors=True)
                free.mkdir()
            if (len(os.listdir(free)) + 1) * int(size) > _KEPT_BYTES:
                self.delete(reference)
            else:
                os.rename(self._path / name, free / name)
        except OSError:
            self.delete(reference)

    def _reuse(self, size: int, path: Path) -> bool:
        """Take a file of that size which nobody needs, and give it this path."""
        if size < RECYCLED_FROM:
            return False
        free = self._path / _FREE / str(size)
        with contextlib.suppress(OSError), os.scandir(free) as entries:
            others = []
            for entry in entries:
                if entry.inode() not in self._writing:
                    others.append(entry.path)
                elif _taken(entry.path, path):
                    return True
            return any(_taken(other, path) for other in others)
        return False

    def leftovers(self, older_than: float) -> list[str]:
        """Return references to all that was written before this time (Unix): a worker may have died over it."""
        found = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._path):
                with contextlib.suppress(OSError):
                    if entry.name not in (_LOCK, _FREE) and entry.stat().st_mtime < older_than:
                        found.append(f"/{entry.name}:{entry.stat().st_size}")
        return found

    def unmap(self) -> None:
        """Keep no more maps; who reads in one has it for as long."""
        self._reading.clear()
        self._writing.clear()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        self.unmap()
        _clear(self._path)
        self.leave_to_parent()

    def leave_to_parent(self) -> None:
        """Called in a fork, and at the end: let go of the lock, by which others see that the run lives."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Proof:
    """A file by which a worker proves which memory it shares, for as long as the worker lives."""

    def __init__(self) -> None:
        sweep()
        self.text = ""
        self._path = ROOT / f"{_PROOF}{secrets.token_hex(9)}"
        try:
            self._lock = _locked(self._path)
            secret = secrets.token_hex(16)
            os.write(self._lock, secret.encode())
        except OSError:
            return
        #: What the worker says of it: ``<name> <secret>``; empty where no memory is shared.
        self.text = f"{self._path.name} {secret}"
        forks.keep(self)

    def remove(self) -> None:
        """Take the proof away."""
        if self.text:
            self._path.unlink(missing_ok=True)
            self.leave_to_parent()

    def leave_to_parent(self) -> None:
        """Called in a fork, and at the end: let go of the file, whose lock says that the worker lives."""
        os.close(self._lock)
        self.text = ""


def is_proven(text: str) -> bool:
    """Is this the text of a proof that lies in our memory too? It may come from a stranger."""
    name, _, secret = text.partition(" ")
    if not name.startswith(_PROOF) or not _NAME.fullmatch(name) or not secret:
        return False
    try:
        path = ROOT / name
        return _is_ours(path) and path.read_text() == secret
    except (OSError, ValueError):
        return False


def sweep() -> None:
    """Remove what processes left that are no more."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(ROOT):
            path = Path(entry.path)
            with contextlib.suppress(OSError):
                if entry.name.startswith(_RUN) and entry.name.endswith(_GONE) and _is_ours(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif entry.name.startswith(_RUN) and _is_ours(path) and _is_orphaned(path / _LOCK):
                    _clear(path)
                elif entry.name.startswith(_PROOF) and _is_ours(path) and _is_orphaned(path):
                    path.unlink()


def _clear(path: Path) -> None:
    """Remove a folder into which somebody may be writing: under another name first, so that nothing new comes in."""
    gone = path.with_name(f"{path.name}{_GONE}")
    with contextlib.suppress(OSError):
        path.rename(gone)
    for _ in range(3):  # who was about to make a file in it when it got its other name makes that all the same
        shutil.rmtree(gone, ignore_errors=True)
        if not gone.exists():
            return


def _locked(path: Path) -> int:
    """Make a file and lock it; whoever sweeps between the two leaves it, because it is young."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _is_ours(path: Path) -> bool:
    found = path.lstat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o077 and not stat.S_ISLNK(found.st_mode)


def _is_orphaned(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if time.time() - os.fstat(descriptor).st_mtime < _YOUNG:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _taken(free: str, path: Path) -> bool:
    """Give a file that nobody needs this path; False: another process was quicker."""
    try:
        os.rename(free, path)
    except FileNotFoundError:
        return False
    return True
