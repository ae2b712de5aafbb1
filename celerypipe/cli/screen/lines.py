"""What nodes elsewhere log and print, on the terminal of a command."""

from __future__ import annotations

import json
import logging

from rich.console import Console as Terminal
from rich.markup import escape

from celerypipe.message.logs import LogLine
from celerypipe.process import log
from celerypipe.process.terminals import harmless
from celerypipe.runner.logs.shown import prefix, texts_of


class LogDisplay:
    """Writes lines to a terminal, as text, or as the log is written where that is JSON."""

    def __init__(self, terminal: Terminal, *, at: bool = False, as_json: bool = False) -> None:
        """``at``: with time and host; ``as_json``: one JSON object a line of the log."""
        self._terminal = terminal
        self._at = at
        self._as_json = as_json

    def show(self, line: LogLine) -> None:
        """Write one."""
        if self._as_json:
            self._out(json.dumps(line.to_dict(), ensure_ascii=False))
            return
        for text in texts_of(line):
            self._text(line, text)

    def _text(self, line: LogLine, text: str) -> None:
        if log.is_json():
            fields = {"run": line.run, "node": line.node, "message_id": line.message}
            record = {"process": line.pid, "created": line.time, "name": line.logger or "celerypipe.node"}
            self._out(log.line(line.level, text, text, worker=line.worker, **fields, **record))
            return
        bar = "|" if self._terminal.options.ascii_only else "│"
        style = "[red]" if line.level >= logging.ERROR else "[dim]"
        for place, each in enumerate(text.splitlines()):
            before = escape(prefix(line, first=place == 0, at=self._at, bar=bar))
            shown = f"{style}{before}[/]{escape(harmless(each.rstrip()))}"
            self._terminal.print(shown, highlight=False, soft_wrap=True)

    def _out(self, text: str) -> None:
        self._terminal.out(text, highlight=False)
