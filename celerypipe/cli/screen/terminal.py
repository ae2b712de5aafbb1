"""What a terminal gets to see: no characters that steer it, nothing once nobody can read it, JSON if that is wanted."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import IO, Any

import click

from celerypipe.process import log
from celerypipe.process.terminals import harmless


def plural(count: int, word: str) -> str:
    """Return a number of things, in words."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


class Screen:
    """A stream that says how a run goes; that its reader left, or its terminal was closed, does not end the run."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._closed = False

    def write(self, text: str) -> int:
        """Write a text, if there is still somebody to read it."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        self._try(self._stream.flush)

    def _try(self, write: Any, *text: str) -> None:
        if not self._closed:
            try:
                write(*text)
            except (OSError, ValueError):  # ValueError: the stream was closed on our side
                self._closed = True
                lead_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        """What else a console asks: whether this is a terminal, which encoding it has."""
        return getattr(self._stream, name)


def lead_nowhere(stream: IO[str]) -> None:
    """Let what is left in its buffer be written to nowhere: Python would fail over it at its end, with status 120."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Lines(logging.Formatter):
    """What loggers say, as a command says it: ``warning: text``; or JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it."""
        if log.is_json():
            return log.JsonFormatter().format(record)
        name = record.name.removeprefix("celerypipe.node.")
        who = "" if name.startswith("celerypipe") else f"{name}: "
        return f"{record.levelname.lower()}: {who}{harmless(super().format(record))}"


_lines, _at_work = Lines(), log.AtWork()


def heard() -> None:
    """Let what loggers say look so, unless somebody gave them handlers."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_lines)
        logging.lastResort.addFilter(_at_work)


def write(level: int, text: str, plain: str, **fields: Any) -> None:
    """Say something; ``plain``: how, where it is not JSON; ``fields``: what else JSON says of it."""
    try:
        click.echo(log.line(level, text, plain, **fields), err=True)
    except OSError:  # there is nowhere left to say it
        lead_nowhere(sys.stderr)
