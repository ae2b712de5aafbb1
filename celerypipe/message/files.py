"""A file as an argument: it travels by its content, and is a path again where it arrives."""

from __future__ import annotations

import contextvars
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import blake3

from celerypipe.errors import CodecError, NodeFailed

#: Bytes that are read, sent and written at a time: a file of any size takes no more memory than that.
PIECE = 4 * 1024 * 1024
#: The longest name, as file systems have it, and the longest file: what comes from elsewhere says less.
LONGEST_NAME, LARGEST = 255, 1 << 50
#: The end of a name that a copy keeps, for who looks there what is inside: ``.wav``, ``.nii.gz``.
_SUFFIX = re.compile(r"(?<=.)(?:\.[A-Za-z0-9_-]{1,16}){1,2}\Z", re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Copy(Protocol):
    """A file on this machine, for as long as anybody has this object."""

    @property
    def path(self) -> Path:
        """Where it is."""


class Here(NamedTuple):
    """A file that stays where it is, whoever looks at it."""

    path: Path


#: Brings the content of a file here.
Find = Callable[["File"], Copy]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class File:
    """A file by its content: BLAKE3 ``digest``, ``name`` without its folder, ``size`` in bytes.

    It is a path: ``open(file)``, ``numpy.load(file)``, ``os.fspath(file)``. Where it was made that is the file itself;
    elsewhere it is a copy that nobody may write to, which is fetched when its path is asked for the first time, and
    stays as long as this object does. Only the end of its name is that of the file.
    """

    digest: str
    name: str
    size: int
    place: FilePlace | None = field(default=None, repr=False, compare=False)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        """Where it is on this machine."""
        if self.place is None:
            raise NodeFailed(f"the file {self.name!r} came from elsewhere, and is only passed on here")
        return self.place.path(self)

    @property
    def suffix(self) -> str:
        """The end of its name; empty if there is none that can be kept."""
        found = _SUFFIX.search(self.name)
        return found[0] if found else ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a file is that was made here."""

    folder: Path

    def path(self, file: File) -> Path:
        """Return its path."""
        return self.folder / file.name

    def pieces(self, file: File) -> Iterator[bytes]:
        """Yield its content; :class:`CodecError` at the end if it is not what it was."""
        path = self.path(file)
        digest = blake3.blake3()
        try:
            with path.open("rb") as content:
                while piece := content.read(PIECE):
                    digest.update(piece)
                    yield piece
        except OSError as error:
            raise CodecError(f"the file {path} cannot be read any more: {error}") from error
        if digest.hexdigest() != file.digest:
            raise CodecError(f"the file {path} was changed after celerypipe.file(); make it anew")


class Arrived:
    """Where a file is that arrived in a message: nowhere, until somebody asks."""

    __slots__ = ("_copy", "_find")

    def __init__(self, find: Find) -> None:
        self._find = find
        self._copy: Copy | None = None

    def path(self, file: File) -> Path:
        """Return the path of its copy."""
        if self._copy is None:
            self._copy = self._find(file)
        return self._copy.path


FilePlace = Origin | Arrived

#: Who says where files are that arrive in this context, at once; None: nobody, they only pass.
arriving: contextvars.ContextVar[Callable[[File], FilePlace | None] | None] = contextvars.ContextVar(
    "celerypipe_arriving", default=None
)


def file(path: str | os.PathLike[str]) -> File:
    """Return a file that can be an argument or a payload. It is read once, for its digest.

    Who changes it before it was sent gets an error there, never a result of another content. Raises :class:`OSError`
    where it cannot be read, :class:`ValueError` where it is no file.
    """
    absolute = Path(path).absolute()
    digest = blake3.blake3()
    with absolute.open("rb") as content:
        if not stat.S_ISREG(os.fstat(content.fileno()).st_mode):
            raise ValueError(f"{absolute} is no file with a content that stays; write what comes out of it into one")
        size = 0
        while piece := content.read(PIECE):
            digest.update(piece)
            size += len(piece)
    return File(digest.hexdigest(), absolute.name, size, Origin(absolute.parent))


def arrived(digest: object, name: object, size: object) -> File:
    """Return a file that came in a message. Raises :class:`CodecError` for what is none."""
    if type(digest) is not str or not _DIGEST.fullmatch(digest):
        raise CodecError(f"malformed message: {str(digest)[:100]!r} is no digest of a file")
    if type(name) is not str or not 0 < len(name) <= LONGEST_NAME or name in (".", "..") or {"/", "\0"} & {*name}:
        raise CodecError(f"malformed message: {str(name)[:100]!r} is no name of a file")
    if type(size) is not int or not 0 <= size <= LARGEST:
        raise CodecError(f"malformed message: a file of {str(size)[:100]} bytes")
    found, place_of = File(digest, name, size), arriving.get()
    return found if place_of is None else replace(found, place=place_of(found))
