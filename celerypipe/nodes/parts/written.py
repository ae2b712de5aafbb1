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
    """The notes of one file. Each is written after the message, by one system call: ``kill -9`` costs at most the last.

    ``begun``: an earlier process noted something; ``end``: the size of the file as far as it is noted.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        notes = np.fromfile(path, NOTE)  # half a note at the end is left out
        os.ftruncate(self._file, notes.nbytes)
        self.begun = len(notes) > 0
        self.end = int(notes["end"][-1]) if self.begun else 0
        self._before = np.sort(notes["key"])

    def __contains__(self, key: str) -> bool:
        """Did an earlier process write the message with this key?"""
        if not self.begun:
            return False
        digest = np.uint64(_digest(key))
        place = int(np.searchsorted(self._before, digest))
        return place < len(self._before) and bool(self._before[place] == digest)

    def add(self, key: str, size: int) -> None:
        """Note a message that is in the file, which has this size now; an empty key: one that will not come again."""
        self.end += size
        os.write(self._file, PACKED.pack(_digest(key) if key else 0, self.end))

    def close(self) -> None:
        """Let go of the notes."""
        os.close(self._file)


def _digest(key: str) -> int:
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
