"""How a line of a worker's log is shown where nobody says how: by a logger, or on standard error if nothing listens."""

from __future__ import annotations

import logging
import sys
import time

from celerypipe.errors import ConfigError
from celerypipe.message.logs import LogLine
from celerypipe.process.terminals import harmless

#: The logger above those of all nodes.
NODES = logging.getLogger("celerypipe.node")


def level_of(given: str | int) -> int:
    """Return the number of a level; :class:`ConfigError` if it is none."""
    known = logging.getLevelNamesMapping()
    level = known.get(given.upper()) if isinstance(given, str) else given
    if type(level) is not int:
        raise ConfigError(f"log_level is {given!r}; give one of {', '.join(sorted(known, key=known.__getitem__))}")
    return level


def show(line: LogLine) -> None:
    """Hand it to the logger ``celerypipe.node.<node>``, as a record with the time, host, process and thread of there.

    Where nothing handles that, each of its lines is written to ``sys.stderr``, which a notebook shows below the cell.
    """
    for text in texts_of(line):
        _show_text(line, text)


def texts_of(line: LogLine) -> list[str]:
    """Return what there is to show of it: how many lines are missing before it, and its own text; each if any."""
    dropped = f"… {line.dropped:,} lines of {line.host}, process {line.pid}, were dropped here" if line.dropped else ""
    return [text for text in (dropped, line.text) if text]


def _show_text(line: LogLine, text: str) -> None:
    logger = NODES.getChild(line.node) if line.node else NODES
    if not logger.hasHandlers():
        for place, each in enumerate(text.splitlines()):
            sys.stderr.write(f"{prefix(line, first=place == 0)}{harmless(each)}\n")
        sys.stderr.flush()
        return
    level = max(line.level, logger.getEffectiveLevel()) if line.stream else line.level
    if logger.isEnabledFor(level):
        logger.handle(record_of(line, text, logger.name))


def record_of(line: LogLine, text: str, name: str) -> logging.LogRecord:
    """Return it as a record of the log."""
    record = logging.LogRecord(name, line.level, "", 0, text, None, None)
    record.created, record.msecs = line.time, (line.time % 1) * 1000
    record.process, record.threadName, record.processName = line.pid, line.thread, line.host
    record.__dict__.update(run=line.run, node=line.node, message_id=line.message, worker=line.worker, line=line)
    return record


def prefix(line: LogLine, *, first: bool = True, at: bool = False, bar: str = "│") -> str:
    """Return what stands before each line of a text: the node, and before the ``first`` one its level if it has one.

    ``at``: the time and the host too.
    """
    has_level = first and not line.stream and line.level != logging.INFO
    level = f"{logging.getLevelName(line.level)} " if has_level else ""
    when = time.strftime("%H:%M:%S", time.localtime(line.time)) + f".{int(line.time % 1 * 1000):03d} " if at else ""
    host = f"{line.host} " if at else ""
    return f"{when}{host}{line.node or 'worker'} {bar} {level}"
