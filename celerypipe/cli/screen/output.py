"""Standard output of a command that runs nodes, which may write there too: it belongs to the JSON, or to the nodes."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast

from rich.console import Console

from celerypipe.definition.pipeline import Pipeline
from celerypipe.process import log
from celerypipe.runner.report import Report
from celerypipe.runner.table import paper

#: Columns of a report that goes into a file or a pipe.
FILE_WIDTH = 120

Publish = Callable[[Report], None]


@contextmanager
def output_for(pipeline: Pipeline, *, as_json: bool) -> Iterator[Publish]:
    """What prints the report. As JSON it has standard output for itself: all else that is written there is diverted.

    A table goes to standard error where a node wrote to standard output, unless that is a terminal, or JSON goes there.
    """
    if as_json:
        with _kept_free() as out:
            yield lambda report: _write_json(report, out)
    elif sys.stdout.isatty():
        yield lambda report: paper(FILE_WIDTH).print(report)
    else:
        noticing, before = Noticing(sys.stdout), _size_of(sys.stdout)

        def publish(report: Report) -> None:
            noticing.flush()
            taken = noticing.written or _size_of(sys.stdout) != before or _is_named_in(pipeline)
            (Console(stderr=True) if taken and not log.is_json() else paper(FILE_WIDTH)).print(report)

        with redirect_stdout(cast(TextIO, noticing)):
            yield publish


@contextmanager
def _kept_free() -> Iterator[TextIO]:
    """Standard output as it was; what anybody here, or a child process, writes there meanwhile goes to standard error.

    It stays so: a node that hangs may write once more when all is over.
    """
    ours = sys.stdout
    try:
        number, errors = ours.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):  # no file of the system: a test, or a program that calls the command
        with redirect_stdout(sys.stderr):
            yield ours
        return
    ours.flush()
    with os.fdopen(os.dup(number), "w", encoding=ours.encoding, errors=ours.errors) as kept:
        os.dup2(errors, number)
        yield kept


def _write_json(report: Report, out: TextIO) -> None:
    text = report.to_json(indent=2)
    try:
        text.encode(out.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(report.to_dict(), indent=2)  # JSON has escapes of its own
    out.write(text + "\n")
    out.flush()


class Noticing:
    """A stream that remembers whether anybody wrote to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.written = False

    def write(self, text: str) -> int:
        """Pass it on."""
        self.written = True
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # whoever asks for it is about to write bytes
            self.written = True
        return getattr(self._stream, name)


def _size_of(stream: TextIO) -> int:
    """How much is in the file that this goes to; 0 where it is none."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _is_named_in(pipeline: Pipeline) -> bool:
    """Does a node get a path that leads to standard output, such as ``/dev/stdout``?"""
    texts = [value for node in pipeline.nodes for value in node.configuration.values() if isinstance(value, str)]
    try:
        out = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return False
    return any(_is_same(text, out) for text in texts if text.startswith("/"))


def _is_same(path: str, out: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), out)
    except (OSError, ValueError):  # no such file, or no path at all
        return False
