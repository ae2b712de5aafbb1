"""Who is left of what a process started, wherever in the tree of processes it is by now."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.processes import alive, birth, command_line, descendants

#: What has this in its environment was started by what is looked at, or by what that started.
VARIABLE = "CENSUS"


@dataclass
class Census:
    """Counts those that have its token in their environment, or were below the process when somebody looked."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    _seen: set[tuple[int, int]] = field(default_factory=set)

    @property
    def environment(self) -> dict[str, str]:
        """What the first of them is started with."""
        return {**os.environ, VARIABLE: self.token}

    def look(self, *roots: int) -> None:
        """Note who is there, below these too: what has another environment is known by that alone."""
        for pid in {*roots, *self._with_token()}:
            self._seen |= {(each, birth(each)) for each in (pid, *descendants(pid))}

    def left(self) -> dict[int, str]:
        """Who lives, and its command."""
        seen = {pid for pid, began in self._seen if began and birth(pid) == began}
        return {pid: command_line(pid).replace("\0", " ") for pid in seen | self._with_token() if alive(pid)}

    def _with_token(self) -> set[int]:
        wanted, found = f"{VARIABLE}={self.token}".encode(), set()
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):  # it is gone, or somebody else's
                    if wanted in (folder / "environ").read_bytes().split(b"\0"):
                        found.add(int(folder.name))
        return found
