"""What a sink notes about a file that it writes: which messages are in it, and where each of them ends."""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from pathlib import Path

import numpy as np

#: One note: the digest of a message's key, and the size of the file with that message in it.
NOTE = np.dtype([("key", "<u8"), ("end", "<u8")])
PACKED = struct.Struct("<QQ")


class Written:
    """The notes of one file. Each is written just before its message, so that a file can be told from a changed one.

    ``begun``: an earlier process noted something; ``end``: the size of the file when all that is noted is in it.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self._notes = np.fromfile(path, NOTE)  # half a note at the end is left out
        self._before = np.sort(self._notes["key"])
        os.ftruncate(self._file, self._notes.nbytes)
        self.begun = len(self._notes) > 0
        self.end = int(self._notes["end"][-1]) if self.begun else 0
        self._last = 0

    def settle(self, size: int) -> bool:
        """Forget the last note if its message is not in the file of this size as a whole; False: the file was changed.

        The file is then to be cut to ``end``.
        """
        if size >= self.end or len(self._notes) < 2 or size < self._notes["end"][-2]:
            return size == self.end
        self._last = self.end - int(self._notes["end"][-2])
        self.take_back()
        self._before = np.sort(self._notes["key"][:-1])
        return True

    def __contains__(self, key: str) -> bool:
        """Did an earlier process write the message with this key?"""
        if not self.begun:
            return False
        digest = np.uint64(_digest(key))
        place = int(np.searchsorted(self._before, digest))
        return place < len(self._before) and bool(self._before[place] == digest)

    def add(self, key: str, size: int) -> None:
        """Note a message of this size, to be written next; an empty key: one that will not come again."""
        os.write(self._file, PACKED.pack(_digest(key) if key else 0, self.end + size))
        self.end, self._last = self.end + size, size

    def take_back(self) -> None:
        """The message that was noted last is not in the file."""
        os.ftruncate(self._file, os.fstat(self._file).st_size - NOTE.itemsize)
        self.end -= self._last

    def close(self) -> None:
        """Let go of the notes."""
        os.close(self._file)


def _digest(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
