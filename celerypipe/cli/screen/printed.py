"""What nodes elsewhere print, shown here while their pipeline runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console as Terminal
from rich.markup import escape

from celerypipe.catalogue.capture import here
from celerypipe.cli.screen.terminal import harmless
from celerypipe.message.console import Console
from celerypipe.process import log

#: The logger above those of all nodes.
NODES = logging.getLogger("celerypipe.node")


class Printed(logging.Handler):
    """Shows the consoles that nodes without a folder log; what runs here printed itself a moment ago."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Show a console; leave anything else to who would have shown it without this handler."""
        console = getattr(record, "console", None)
        if not isinstance(console, Console):
            if not logging.root.handlers and logging.lastResort and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
            return
        if console.worker != here():
            if log.is_json():
                self._write_as_json(record, console)
                return
            name = escape(record.name.removeprefix(f"{NODES.name}."))
            bar = "|" if self._terminal.options.ascii_only else "│"
            for line in console.lines:
                text = escape(harmless(line.text.rstrip("\r\n")))
                self._terminal.print(f"[dim]{name} {bar}[/dim] {text}", highlight=False, soft_wrap=True)

    def _write_as_json(self, record: logging.LogRecord, console: Console) -> None:
        fields = {name: getattr(record, name, "") for name in log.FIELDS}
        for line in console.lines:
            text = line.text.rstrip("\r\n")
            self._terminal.out(log.line(logging.INFO, text, text, worker=console.worker, **fields), highlight=False)


@contextmanager
def shown(terminal: Terminal, *, quiet: bool) -> Iterator[None]:
    """Show what nodes print for the length of a block."""
    if quiet:
        yield
        return
    handler, level = Printed(terminal), NODES.level
    NODES.addHandler(handler)
    NODES.setLevel(logging.INFO)
    try:
        yield
    finally:
        NODES.removeHandler(handler)
        NODES.setLevel(level)
