"""What nodes print on a worker: ``sys.stdout`` and ``sys.stderr`` are files as anywhere, and their lines go to the log.

Celery puts objects there that have a ``write`` and little else, and makes a log line of each call of it: seven of
``print("frame", 3, "of", 5)``.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import signals
from celery.app.log import Logging
from celery.utils.log import mlevel

from celerypipe.process import forks
from celerypipe.process.log import AtWork, JsonFormatter, Whose, at_work, is_json
from celerypipe.worker.logs import Forwarding, Natural, outlet

#: Characters of a line that become lines of the log before its end is there.
LONGEST = 8_192


class LogStream(io.TextIOWrapper):
    """A standard stream whose text becomes lines of the log. ``buffer`` and descriptor are those of the process.

    What is written there, by a child process too, goes where the process writes to, and not through the log.
    """

    def __init__(self, stream: io.TextIOWrapper, log: Callable[[str], None]) -> None:
        super().__init__(stream.buffer, stream.encoding, stream.errors, line_buffering=True)
        self._log = log
        #: By thread: a line that has no end yet, and what the thread worked on when it began.
        self._begun: dict[int, tuple[Whose, str]] = {}
        self._logging: set[int] = set()
        forks.keep(self)
        signals.task_postrun.connect(self.settle)  # a weak reference: who replaces this stream has its own

    def write(self, text: str, /) -> int:
        """Take a piece; what is a whole line with it is logged."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        thread = threading.get_ident()
        if thread in self._logging:  # a handler of the log says that it failed
            return super().write(text)
        work, begun = self._begun.pop(thread, (None, ""))
        if begun and work != at_work.get():
            self._say(work, begun)
            begun = ""
        work = at_work.get()
        *lines, rest = f"{begun}{text}".split("\n")
        for line in lines:
            self._say(work, line)
        if len(rest) > LONGEST:
            self._say(work, rest)
        elif rest:
            self._begun[thread] = work, rest
        return len(text)

    def flush(self) -> None:
        """Log what this thread began, unless it is to be written over, as a bar of progress is."""
        super().flush()
        work, begun = self._begun.get(threading.get_ident(), (None, ""))
        if begun and "\r" not in begun:
            del self._begun[threading.get_ident()]
            self._say(work, begun)

    def settle(self, **_: Any) -> None:
        """Called when a task is through: log what was begun, by it or by threads that are no more."""
        super().flush()
        others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        for thread in [each for each in self._begun if each not in others]:
            self._say(*self._begun.pop(thread))

    def leave_to_parent(self) -> None:
        """Called in a fork: lines that were begun are the parent's."""
        self._begun.clear()

    @property
    def mode(self) -> str:
        """That of a standard stream."""
        return "w"

    def isatty(self) -> bool:
        """A log is no terminal: it wants no colours, and nothing is written over."""
        return False

    def close(self) -> None:
        """The process goes on, and so does its log."""
        self.flush()

    def _say(self, work: Whose, line: str) -> None:
        """Log a line; of one that was written over, what a terminal would show at last."""
        text = line.removesuffix("\r").rpartition("\r")[2]
        if not text.strip():
            return
        thread, before = threading.get_ident(), at_work.set(work)
        self._logging.add(thread)
        try:
            self._log(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        finally:
            self._logging.discard(thread)
            at_work.reset(before)


class StreamLog(Logging):  # type: ignore[misc]  # celery ships no types
    """``app.log`` with those streams, whose lines say what they belong to."""

    _worker = ""
    _work = AtWork()
    _natural = Natural(outlet)
    _forwarding = Forwarding(outlet)

    def setup_logging_subsystem(self, *args: Any, hostname: str | None = None, **options: Any) -> Any:
        """Called once in a process."""
        self._worker = hostname or ""
        handled = super().setup_logging_subsystem(*args, hostname=hostname, **options)
        # billiard logs by these in a process that it spawned, before anything of ours is there.
        layout = os.environ.get("_MP_FORK_LOGFORMAT_", "")
        os.environ["_MP_FORK_LOGFORMAT_"] = re.sub(r"%\((at_work|run|node|message_id)\)s", "", layout)
        if is_json():
            os.environ["_MP_FORK_LOGLEVEL_"] = ""
        return handled

    def setup_handlers(self, logger: logging.Logger, *args: Any, **options: Any) -> logging.Logger:
        """Called for each logger that gets a handler, if it has none of the project's own; return it."""
        before = list(logger.handlers)
        super().setup_handlers(logger, *args, **options)
        for handler in [each for each in logger.handlers if each is not self._forwarding]:
            handler.addFilter(self._work)
            handler.addFilter(self._natural)
            if is_json() and handler not in before:
                handler.setFormatter(JsonFormatter(self._worker))
        logger.addHandler(self._forwarding)
        return logger

    def redirect_stdouts_to_logger(
        self, logger: logging.Logger, loglevel: Any = None, stdout: bool = True, stderr: bool = True
    ) -> None:
        """Called where the log is set up, unless ``worker_redirect_stdouts`` is false."""
        level = mlevel(loglevel or logging.WARNING)
        for name, wanted in (("stdout", stdout), ("stderr", stderr)):
            stream = getattr(sys, f"__{name}__")
            if wanted and isinstance(stream, io.TextIOWrapper):
                setattr(sys, name, LogStream(stream, partial(logger.log, level, extra={"stream": name})))
