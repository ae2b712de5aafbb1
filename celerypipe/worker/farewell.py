"""What a process says when it may be its last word: without any lock.

The locks of :mod:`logging`, of ``print`` and of threads may be held for good by what was interrupted or is stuck. Who
waits for one of them to say why the process ends never ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any


def say(logger: logging.Logger, level: int, text: str) -> None:
    """Write a line where this logger's lines go, as its handlers would, straight to their files."""
    record = logger.makeRecord(logger.name, level, "", 0, text, (), None)
    said = False
    for handler in _handlers(logger):
        with contextlib.suppress(Exception):  # one that writes to no file, or cannot; the others may
            if level >= handler.level and handler.filter(record):
                _write(handler.stream.fileno(), handler.format(record))
                said = True
    if not said:
        with contextlib.suppress(OSError):
            _write(2, text)


def _handlers(logger: logging.Logger) -> Iterator[logging.StreamHandler[Any]]:
    at: logging.Logger | None = logger
    while at is not None:
        yield from (handler for handler in at.handlers if isinstance(handler, logging.StreamHandler))
        at = at.parent if at.propagate else None


def _write(file: int, text: str) -> None:
    os.write(file, f"{text}\n".encode(sys.getfilesystemencoding(), "backslashreplace"))
