"""Files of shared memory as this process maps them: those that come round again stay mapped.

The pages of a file that is written again are those it had. To have the kernel map them once more takes longer than to
copy what is in them, so a map that was wanted twice is kept. That says nothing about who reads: each reader has a view
of its own, and the file is written again once all of those are gone.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterable

import numpy as np

#: Every map keeps a file descriptor before Python 3.13: beyond so many living ones nothing is mapped, and beyond fewer
#: none is kept.
_MOST_MAPS, _MOST_TO_KEEP = 128, 96
#: Maps that are kept of one run and for one purpose, and bytes.
_KEPT, _KEPT_BYTES = 48, 256 * 1024 * 1024
#: The most pieces that one call of writev takes.
_PIECES = 512

_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


class _Forks:
    """Counts how often this process forked: a child has all its parent's maps, and nobody knows for how long."""

    def __init__(self) -> None:
        self.count = 0
        os.register_at_fork(before=self.note)

    def note(self) -> None:
        self.count += 1


_forks = _Forks()


def watch(content: memoryview) -> Callable[[], object]:
    """Return a function that returns None once nobody reads this content any more, here or in a child."""
    there, before = weakref.ref(content.obj), _forks.count
    return lambda: there() if _forks.count == before else True


class Maps:
    """The maps that one run needs, for reading or for ``writing``. ``keep`` those that were used last."""

    def __init__(self, *, writing: bool, keep: bool = True) -> None:
        self._writing = writing
        self._protection = mmap.PROT_READ | (mmap.PROT_WRITE if writing else 0)
        # Who writes needs all pages, and gets them sooner together; who reads may want a few.
        self._flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if writing else 0)
        self._keep = keep
        #: By the number of the file, the last used one last; None for one that was read once.
        self._kept: dict[int, mmap.mmap | None] = {}
        self._lock = threading.Lock()

    def __contains__(self, number: int) -> bool:
        """Is the file of this number mapped?"""
        return self._kept.get(number) is not None

    def view(self, descriptor: int, file: os.stat_result, *, again: bool = True) -> memoryview | None:
        """Return the bytes of a file, which may come ``again`` with others in it; None if it is not to be mapped.

        Raises :class:`OSError`, :class:`ValueError`.
        """
        number, size = file.st_ino, file.st_size
        with self._lock:
            known = self._writing or number in self._kept
            found = self._kept.pop(number, None)
        if found is None or len(found) != size:
            living = len(_maps)
            if living >= _MOST_MAPS or (self._writing and not (self._keep and living < _MOST_TO_KEEP)):
                return None
            found = mmap.mmap(descriptor, size, self._flags, self._protection)
            _maps.add(found)
            known = known and living < _MOST_TO_KEEP
        if self._keep and again:
            with self._lock:
                self._kept[number] = found if known else None
                self._shrink()
        return np.frombuffer(found, np.uint8).data

    def write(self, descriptor: int, size: int, pieces: Iterable[memoryview]) -> bool:
        """Write into the pages that a file has; False if it has not that size, or is not to be mapped."""
        found = os.fstat(descriptor)
        view = self.view(descriptor, found) if found.st_size == size else None
        if view is None:
            return False
        target, place = np.frombuffer(view, np.uint8), 0
        for piece in pieces:
            target[place : place + piece.nbytes] = piece
            place += piece.nbytes
        os.utime(descriptor)  # a map says nothing of what is written
        return True

    def forget(self, number: int) -> None:
        """Let go of a file that is removed: its pages are there for as long as they are mapped."""
        with self._lock:
            self._kept.pop(number, None)

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._kept.clear()

    def _shrink(self) -> None:
        """Let go of those that were not used for longest; the caller has the lock."""
        size = sum(map(len, filter(None, self._kept.values())))
        while len(self._kept) > _KEPT or size > _KEPT_BYTES:
            oldest = self._kept.pop(next(iter(self._kept)))
            size -= len(oldest) if oldest is not None else 0


def write_all(descriptor: int, pieces: list[memoryview]) -> None:
    """Write pieces into a file, one after the other. Raises :class:`OSError`."""
    while pieces:
        written = os.writev(descriptor, pieces[:_PIECES])
        while pieces and written >= pieces[0].nbytes:
            written -= pieces.pop(0).nbytes
        if pieces and written:
            pieces[0] = pieces[0][written:]
