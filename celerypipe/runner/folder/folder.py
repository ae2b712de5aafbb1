"""The folder of a run, laid out as juturna does: ``config.json``, a folder a node, telemetry, dumps, dead letters.

Beside them ``report.json`` says how the last run ended, also where no terminal was left to say it on.
"""

from __future__ import annotations

import contextlib
import csv
import json
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from celerypipe.codec.identity import identity
from celerypipe.contract.reach import Reach, file_name
from celerypipe.errors import CodecError, ConfigError
from celerypipe.message.console import Console
from celerypipe.message.message import Message
from celerypipe.message.payload import size_bytes
from celerypipe.runner.folder.letters import DeadLetters

#: What a node printed, a line a message, in its folder.
CONSOLE = "console.jsonl"
#: Where messages spent their time, by the last run.
TRACES = "trace.json"
#: How the last run ended.
REPORT = "report.json"
TELEMETRY_COLUMNS = ("ts", "evt", "node", "origin", "msg_id", "src_id", "size")


class Folder:
    """What a run writes to disk. Telemetry rows are ``ts, evt (rx/tx), node, origin, msg_id, src_id, size``."""

    def __init__(self, path: Path, telemetry: str | None, letters: DeadLetters, reach: Reach) -> None:
        self.path = path
        self._reach = reach
        self.letters = letters
        self._telemetry_path = path / telemetry if telemetry else None
        self._file: TextIO | None = None
        self._consoles: dict[str, TextIO] = {}
        self._lock = threading.Lock()

    def make(self, definition: dict[str, Any], nodes: list[str]) -> bool:
        """Make the folders and write the definition, environment names unresolved; False: JSON cannot say it.

        Then there is no ``config.json``, since another definition would be read from it. A folder that came with a
        pipeline file may hold links: none is followed out of its reach.
        """
        for name in (*nodes, "config.json", REPORT, "dead_letters", "journals"):
            self._reach.require(self.path / name)
        if self._telemetry_path is not None:
            self._reach.require(self._telemetry_path)
        try:
            for name in nodes:
                (self.path / name).mkdir(parents=True, exist_ok=True)
            written = self.path / "config.json"
            text = _in_json(definition)
            if text is not None:
                written.write_text(text, encoding="utf-8")
            else:
                written.unlink(missing_ok=True)
            if self._telemetry_path is not None:
                self._file = self._telemetry_path.open("a", newline="", encoding="utf-8")
                if self._file.tell() == 0:
                    csv.writer(self._file).writerow(TELEMETRY_COLUMNS)
        except OSError as error:
            raise ConfigError(f"pipeline.folder: cannot write to {self.path}: {error}") from None
        return text is not None

    def of(self, node: str) -> Path:
        """The folder of one node."""
        return self.path / node

    @property
    def telemetry(self) -> bool:
        return self._file is not None

    def record(self, event: str, node: str, message: Message, source_id: str) -> None:
        """Write one telemetry row: a message was received (``rx``) or sent (``tx``) by a node."""
        row = (time.time(), event, node, message.creator, message.id, source_id, size_bytes(message.payload))
        with self._lock:
            if self._file is not None:
                csv.writer(self._file).writerow(row)

    def dump(self, node: str, message: Message) -> None:
        """Write a message as ``auto_<id>.json`` into its node's folder; another one of that id gets a longer name."""
        more = ""
        while True:
            path = self.of(node) / f"auto_{file_name(message.id)}{more}.json"
            try:
                with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(message.to_json())
                return
            except FileExistsError:
                more = f"-{secrets.token_hex(4)}"

    def console(self, node: str, message: Message, console: Console, outcome: str) -> None:
        """Add what a node printed for a message to ``console.jsonl`` in its folder."""
        about = {"message": message.id, "origin": message.origin, "sequence": message.sequence, "outcome": outcome}
        line = json.dumps({**about, **console.to_dict()}, ensure_ascii=False)
        with self._lock:
            file = self._consoles.get(node)
            if file is None:
                path = self.of(node) / CONSOLE
                self._reach.require(path)
                file = self._consoles[node] = path.open("a", encoding="utf-8", errors="backslashreplace")
            file.write(line + "\n")
            file.flush()  # who looks at a run that goes on sees what was printed so far

    def keep(self, report: str) -> None:
        """Write how the run ended."""
        (self.path / REPORT).write_text(report + "\n", encoding="utf-8", errors="backslashreplace")

    def keep_traces(self, paths: Sequence[dict[str, Any]]) -> None:
        """Write where messages spent their time."""
        with contextlib.suppress(OSError):  # a full disk is said of the report
            (self.path / TRACES).write_text(json.dumps(paths), encoding="utf-8", errors="backslashreplace")

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for file in self._consoles.values():
                file.close()
            self._consoles.clear()
            if self._file is not None:
                self._file.close()
                self._file = None


def _in_json(definition: dict[str, Any]) -> str | None:
    """The definition as JSON, where a tuple is a list; None if something else would be read from it."""
    try:
        text = json.dumps(definition, indent=2)
        return text if identity(json.loads(text)) == identity(_with_lists(definition)) else None
    except (TypeError, ValueError, CodecError):  # an array, a cycle, an object of a class that only Python knows
        return None


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, list | tuple) else value
