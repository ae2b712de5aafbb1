"""The terminals that a process began with, and what it does once they are closed."""

from __future__ import annotations

import contextlib
import os


def harmless(text: str) -> str:
    """Return a text without characters that steer a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


class Terminals:
    """Which of standard input, output and error were terminals."""

    def __init__(self) -> None:
        self._descriptors = tuple(number for number in (0, 1, 2) if os.isatty(number))

    def __bool__(self) -> bool:
        return bool(self._descriptors)

    def let_go(self) -> None:
        """Write to nowhere from now on, where a terminal is gone: there it would raise, in user code too."""
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in self._descriptors:
                if not os.isatty(number):
                    os.dup2(nowhere, number)
            os.close(nowhere)
