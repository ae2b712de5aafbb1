"""A terminal of a test's own, which a process may have for its own, and which can be closed."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import threading
from pathlib import Path
from typing import Any

from tests.servers.checkout import ROOT
from tests.servers.zygote import Forked, zygote


class Terminal:
    """A pseudo-terminal of some width; what is written to it is read at once, for it holds a few pages only."""

    def __init__(self, columns: int = 80) -> None:
        self._ours, self.theirs = os.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._seen = bytearray()
        self._stop, self._stopping = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def how(self) -> dict[str, Any]:
        """What makes ``Popen`` start a process on it, which leads a session of its own there."""
        return {"stdin": self.theirs, "stdout": self.theirs, "start_new_session": True, "preexec_fn": self._own}

    def start(self, *words: object, cwd: Path = ROOT, **environment: str) -> Forked:
        """Start Python on it, with variables of its own."""
        around = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        return zygote.fork([*map(str, words)], cwd=cwd, environment=around, streams=[self.theirs] * 3)

    @property
    def text(self) -> str:
        """All that was written to it so far."""
        return self._seen.decode(errors="replace")

    def type(self, text: str) -> None:
        """What somebody types at it."""
        os.write(self._ours, text.encode())

    def close(self) -> None:
        """Close its window."""
        os.close(self._stopping)
        self._reader.join()  # one that waits for output would keep it open
        for descriptor in (self._stop, self.theirs, self._ours):
            os.close(descriptor)

    def _own(self) -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _read(self) -> None:
        while self._ours in select.select([self._ours, self._stop], [], [])[0]:  # to the end of what was written
            self._seen += os.read(self._ours, 65536)
