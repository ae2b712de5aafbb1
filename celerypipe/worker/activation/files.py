"""The folder of a worker for files that arrive: each content once, for all its processes, bounded, gone at its end.

::

    <CELERYPIPE_FILES, or the machine's temporary folder>/celerypipe-files-<user>-<host>-<life of the worker>/
        alive                   locked (shared) by each process that uses the folder
        <digest>                the content; locked (shared) for each File that somebody has
        <digest>.wav            the same with the end of a name
        <digest>.<random>.part  on its way here; locked by who fetches it
        <two letters>.lock      locked by who fetches a content that begins so; room.lock: by who makes room

A folder that no process holds is one of a worker that was killed: whoever makes the next one removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import blake3

from celerypipe.errors import NodeFailed
from celerypipe.mailbox.blob import files as file_store
from celerypipe.message.files import File
from celerypipe.process import forks
from celerypipe.redis.connection import Client

PREFIX = "celerypipe-files"
_CONTENT = re.compile(r"[0-9a-f]{64}")
#: How often a folder is made anew that somebody removed while it was looked at.
_AGAIN = 5


class Held:
    """A copy that stays as long as this object does: it keeps a lock on the content."""

    __slots__ = ("_lock", "path")

    def __init__(self, lock: BinaryIO, path: Path) -> None:
        self._lock = lock
        self.path = path

    def __del__(self) -> None:
        self._lock.close()


class FileFolder:
    """Fetches files for one worker. ``base``: where its folder is made; ``most``: bytes that may be in it."""

    def __init__(self, connect: Callable[[], Client], base: Path, life: str, most: int) -> None:
        self._connect = connect
        self._most = most
        self.base = base
        self.path = base / f"{PREFIX}-{os.getuid()}-{os.uname().nodename}-{life}"
        self._alive: BinaryIO | None = None
        forks.keep(self)

    def __call__(self, file: File) -> Held:
        """Return a copy of a file; :class:`NodeFailed` says why there cannot be one."""
        try:
            for _ in range(_AGAIN):
                with contextlib.suppress(FileNotFoundError):  # somebody removed the folder a moment ago
                    self._open()
                    with self._locked(f"{file.digest[:2]}.lock"):
                        if not (self.path / file.digest).exists():
                            self._fetch(file)
                        if (held := self._held(file)) is not None:
                            return held
        except OSError as error:
            text = (
                f"the file {file.name!r} cannot be kept in {self.path}: {error}; choose another place: CELERYPIPE_FILES"
            )
            raise NodeFailed(text) from error
        raise NodeFailed(f"the file {file.name!r} cannot be kept: somebody removes {self.path} again and again")

    def __del__(self) -> None:
        self._let_go()

    def leave_to_parent(self) -> None:
        """Called in a fork: each process that fetches files holds the folder by a lock of its own."""
        self._let_go()

    def _let_go(self) -> None:
        if self._alive is not None:
            self._alive.close()
            self._alive = None

    def remove(self) -> None:
        """Remove it: its worker ends."""
        self._let_go()
        shutil.rmtree(self.path, ignore_errors=True)

    # -- the folder -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Make the folder, or see that it is there and ours, and hold it."""
        if self._alive is not None and self._is_same(self._alive, self.path / "alive"):
            return
        self.base.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
            self._sweep()
        about = self.path.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
            raise NodeFailed(f"{self.path} is no private folder of this user; choose another place: CELERYPIPE_FILES")
        self._let_go()
        self._alive = (self.path / "alive").open("wb")
        fcntl.flock(self._alive, fcntl.LOCK_SH)

    def _sweep(self) -> None:
        """Remove the folders of workers that were killed."""
        for folder in self.base.glob(f"{PREFIX}-{os.getuid()}-{os.uname().nodename}-*"):
            with contextlib.suppress(OSError), (folder / "alive").open("rb") as alive:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.path / name).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _is_same(opened: BinaryIO, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(opened.fileno()), path.stat())
        return False

    # -- contents ---------------------------------------------------------------------------------------------------

    def _held(self, file: File) -> Held | None:
        """Hold a content that is there; None if it went away meanwhile."""
        content = self.path / file.digest
        try:
            lock = content.open("rb")
        except FileNotFoundError:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not self._is_same(lock, content):
            lock.close()
            return None
        os.utime(content)  # used last
        named = content.with_name(file.digest + file.suffix)
        with contextlib.suppress(FileExistsError):
            os.link(content, named)
        return Held(lock, named)

    def _fetch(self, file: File) -> None:
        """Bring a content here. What is not what was sent is fetched once more: its runner sends it again."""
        found = ""
        for _ in range(2):
            with self._part(file) as part, self._connect() as client:
                found = _written(part, file_store.pieces(client, file))
                if found == file.digest and os.fstat(part.fileno()).st_size == file.size:
                    os.fchmod(part.fileno(), 0o400)
                    os.rename(part.name, self.path / file.digest)
                    return
                file_store.forget(client, file)
        raise NodeFailed(
            f"the content of the file {file.name!r} is not what was sent: its digest is {found[:16]}…, "
            f"not {file.digest[:16]}…; somebody alters it in Redis"
        )

    @contextlib.contextmanager
    def _part(self, file: File) -> Iterator[BinaryIO]:
        """A file to write to, for which there is room; it is gone afterwards if it was not renamed."""
        path = self.path / f"{file.digest}.{secrets.token_hex(4)}.part"
        try:
            with self._locked("room.lock"):
                self._make_room(file)
                part = path.open("xb")
                fcntl.flock(part, fcntl.LOCK_EX)
                part.truncate(file.size)  # counts from now on
            with part:
                yield part
        finally:
            path.unlink(missing_ok=True)

    def _make_room(self, file: File) -> None:
        """Remove what was not used for longest, and is not held, until there is room."""
        there = [(path, path.stat()) for path in self.path.iterdir() if _CONTENT.match(path.name)]
        contents = [(path, about) for path, about in there if path.suffix == ".part" or _CONTENT.fullmatch(path.name)]
        size = sum(about.st_size for _, about in contents) + file.size
        for path, about in sorted(contents, key=lambda each: each[1].st_mtime_ns):
            if size <= self._most:
                return
            if self._removed(path):
                size -= about.st_size
        if size > self._most:
            raise NodeFailed(
                f"there is no room for the file {file.name!r} of {file.size:,} bytes: this worker keeps "
                f"{self._most:,}, and what is there is in use; raise CELERYPIPE_FILES_BYTES there"
            )

    def _removed(self, path: Path) -> bool:
        """Remove a content with all its names, unless somebody holds it."""
        try:
            with path.open("rb") as content:
                fcntl.flock(content, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for each in [path] if path.suffix == ".part" else self.path.glob(f"{path.name}*"):
                    if each == path or each.suffix != ".part":
                        each.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            return False
        return True


def _written(part: BinaryIO, pieces: Iterator[bytes]) -> str:
    """Write a content; return its digest."""
    digest = blake3.blake3()
    for piece in pieces:
        part.write(piece)
        digest.update(piece)
    part.flush()
    return digest.hexdigest()
