"""The lines of a log: in Celery's layout or a JSON object each, with the run, node and message they belong to."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

#: The variable that says how a log is written, and what it may say.
VARIABLE = "CELERYPIPE_LOG_FORMAT"
FORMATS = ("text", "json")

#: Celery's layout, with what a line belongs to before what it says.
LAYOUT = "[%(asctime)s: %(levelname)s/%(processName)s] %(at_work)s%(message)s"

#: Run, node and message, an empty one between two of them; None: nothing of a run.
Whose = tuple[str, str, str] | None
#: What a record calls them.
FIELDS = ("run", "node", "message_id")
#: What this thread works on.
at_work: contextvars.ContextVar[Whose] = contextvars.ContextVar("celerypipe_at_work", default=None)


def is_json(environment: Mapping[str, str] = os.environ) -> bool:
    """Is a log written as JSON?"""
    return environment.get(VARIABLE, "").strip().lower() == "json"


def said(work: Whose) -> str:
    """Return what a line begins with that belongs to this."""
    if work is None:
        return ""
    run, node, message = work
    return f"run {run} node {node} message {message}: " if message else f"run {run} node {node}: "


class AtWork(logging.Filter):
    """Gives every log record ``run``, ``node`` and ``message_id``, and all three as a text: ``at_work``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; let everything through."""
        own = [getattr(record, name, None) for name in FIELDS]
        if not all(isinstance(each, str) for each in own):  # who logged it with all three knows better
            for name, value in zip(FIELDS, at_work.get() or ("", "", ""), strict=True):
                setattr(record, name, value)
        record.at_work = said(at_work.get())
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line, always with the same keys. ``worker``: the name of the worker; empty: there is none."""

    def __init__(self, worker: str = "") -> None:
        super().__init__()
        self.worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; letters beyond ASCII are escaped, so that any encoding can write it."""
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        facts: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.processName,
            "pid": record.process,
            "worker": self.worker or None,
            "run": getattr(record, "run", "") or None,
            "node": getattr(record, "node", "") or None,
            "message": getattr(record, "message_id", "") or None,
            "text": record.getMessage(),
            "exception": "\n".join(filter(None, [record.exc_text, record.stack_info])) or None,
        }
        return json.dumps(facts)


def line(level: int, text: str, plain: str, *, worker: str = "", **fields: Any) -> str:
    """Return what is to be written where no logger is asked: ``plain``, or the same as JSON, with these fields."""
    if not is_json():
        return plain
    record = logging.LogRecord("celerypipe", level, "", 0, text, None, None)
    record.__dict__.update(fields)
    return JsonFormatter(worker).format(record)
