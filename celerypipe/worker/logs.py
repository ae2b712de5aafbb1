"""What nodes log and print on a worker, on its way to their runs; the rest goes to who asks for this worker.

Nobody waits here but for another thread that writes a line just then: it goes into a pipe, which the process reads that
gives the heartbeat. What has no room there is dropped, and what is too much in one second; lines are numbered, so their
reader sees how many are missing.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from celerypipe.heartbeat.frames import frame
from celerypipe.mailbox.logs import LogPiece, packed
from celerypipe.mailbox.record import SILENT
from celerypipe.process.log import at_work
from celerypipe.redis.secret import HIDDEN

#: Lines that a process may log in a row, and from then on in each second.
BURST, RATE = 2_000, 500
#: Bytes that the kernel writes in one piece, and of a name that stands in each of them.
WHOLE, NAME = 4_096, 60
#: Pieces of one line at most.
PIECES = 32
#: Runs whose lines are numbered, and secrets of runs that are hidden.
_RUNS, _SECRETS = 256, 1_000
#: Characters of a line of a secret that is hidden by itself: nodes print line by line.
_TELLING = 8
#: Seconds for which the turn of another thread is waited for: a message that was interrupted may have left it taken.
_TURN = 0.05
#: Bytes that the pipe is asked to hold.
_HOLDS = 1 << 20


@dataclass(frozen=True, slots=True)
class Interest:
    """What a run wants to hear: from which level on, and what is hidden in it."""

    run: str
    node: str
    level: int
    secrets: tuple[str, ...] = field(default=(), repr=False)


_wanted: contextvars.ContextVar[Interest | None] = contextvars.ContextVar("celerypipe_wanted", default=None)


class LogOutlet:
    """The way out of this process. ``secrets`` are hidden in every line."""

    def __init__(self) -> None:
        self._fd = -1
        self._pid = 0
        self._allowed = float(BURST)
        self._looked = 0.0
        self._counts: dict[str, itertools.count[int]] = {}
        self._last: dict[str, int] = {}
        #: Runs of which the last lines were dropped.
        self._dropped: set[str] = set()
        #: What this process works on, for threads that belong to none of it themselves.
        self._at_work: dict[int, Interest] = {}
        self._secrets: tuple[str, ...] = ()
        #: Those of runs, the newest last: what a thread says that lives on after its message is in no run's lines.
        self._of_runs: dict[str, None] = {}
        #: Held while something is numbered and written, so that numbers leave in their order.
        self._turn = threading.Lock()
        self._levels = threading.Lock()
        self._formatter = logging.Formatter()
        #: The level below which records are made only because a run wants them; None: there is no such run.
        self.natural: int | None = None

    # -- its pipe ---------------------------------------------------------------------------------------------------

    def open(self, *secrets: str | None) -> int:
        """Make the pipe; return the end that is read. Forked processes share it."""
        reads, self._fd = os.pipe()
        os.set_blocking(self._fd, False)
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _HOLDS)
        self._secrets = tuple(filter(None, secrets))
        return reads

    @property
    def path(self) -> str:
        """Where a process that inherits nothing finds it; empty: nowhere on this system."""
        return f"/proc/{os.getpid()}/fd/{self._fd}" if sys.platform == "linux" and self._fd >= 0 else ""

    def reach(self, path: str, *secrets: str | None) -> None:
        """Find it there."""
        if path:
            with contextlib.suppress(OSError):  # its worker has just ended
                self._fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        self._secrets = tuple(filter(None, secrets))

    # -- what is wanted ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def wanted(self, wanted: Interest) -> Iterator[None]:
        """Within the block this thread works for that run; so do those of its threads that say nothing else."""
        self._hide(wanted.secrets)
        token, thread = _wanted.set(wanted), threading.get_ident()
        self._at_work[thread] = wanted
        self._be_heard()
        try:
            yield
        finally:
            _wanted.reset(token)
            self._at_work.pop(thread, None)
            self._be_heard()

    def _be_heard(self) -> None:
        """Have records made that a run wants, and this worker's own log does not."""
        root = logging.root
        with self._levels:
            natural = root.level if self.natural is None else self.natural
            lowest = min([natural, *(each.level for each in list(self._at_work.values()))])
            self.natural = natural if lowest < natural else None
            if root.level != lowest:
                root.setLevel(lowest)

    def _hide(self, secrets: tuple[str, ...]) -> None:
        """Hide these from now on, and each line of one that has several."""
        lines = [line.strip() for secret in secrets if "\n" in secret for line in secret.splitlines()]
        new = dict.fromkeys((*secrets, *(line for line in lines if len(line) >= _TELLING)))
        if not new.keys() <= self._of_runs.keys():
            known = {each: None for each in self._of_runs if each not in new} | new
            self._of_runs = dict.fromkeys(list(known)[-_SECRETS:])

    def last(self, run: str) -> int:
        """The number of the last line that this process sent for a run; 0: none.

        Where some were dropped since, an empty one tells of them.
        """
        if self._pid != os.getpid():
            return 0
        if run in self._dropped:
            with self._in_turn():
                self._send(run, LogPiece(self._numbered(run), time.time(), 0, self._pid, "", "", "", "", "", False, ""))
        return self._last.get(run, 0)

    # -- what is logged ---------------------------------------------------------------------------------------------

    def write(self, record: logging.LogRecord) -> None:
        """Send a record, if somebody wants it."""
        if self._fd < 0:
            return
        wanted = None if _is_ours(record.name) else _wanted.get() or self._only()
        stream = getattr(record, "stream", "")
        level = wanted.level if wanted is not None else self.natural or 0
        if level >= SILENT or (
            not stream and (record.levelno < level or (wanted is not None and _is_about_tasks(record)))
        ):
            return
        run, node, message = (wanted is not None and at_work.get()) or ("", "", "")
        if wanted is not None and not run:
            run, node = wanted.run, wanted.node
        if self._pid != os.getpid():
            self._begin()
        if not self._may():
            self._numbered(run)
            self._dropped.add(run)
            return
        text = self._text(record)
        size = WHOLE - 500 if text.isascii() else (WHOLE - 500) // 4
        pieces = [text[place : place + size] for place in range(0, max(1, len(text)), size)]
        if len(pieces) > PIECES:
            left = len(text) - PIECES * size
            pieces[PIECES:] = [f"… {left:,} characters left out"]
        named = (record.name, record.threadName or "", node, message)
        logger, thread, node, message = map(_cut, named)
        about = record.created, record.levelno, self._pid, stream, logger, thread, node, message
        with self._in_turn():
            for place, piece in enumerate(pieces):
                more = place < len(pieces) - 1
                if not self._send(run, LogPiece(self._numbered(run), *about, more, piece)):
                    return

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Let no other thread of this process write meanwhile."""
        turn = self._turn
        if not turn.acquire(timeout=_TURN):
            turn = self._turn = threading.Lock()
            turn.acquire()
        try:
            yield
        finally:
            turn.release()

    def _send(self, run: str, line: LogPiece) -> bool:
        try:
            os.write(self._fd, frame(run.encode(), packed(line)))
        except OSError:  # it is full, or nobody reads it any more
            self._dropped.add(run)
            return False
        self._last[run] = line.number
        self._dropped.discard(run)
        return True

    def _only(self) -> Interest | None:
        """What all of this process is for, if that is one thing."""
        found = list(self._at_work.values())
        return found[0] if len(found) == 1 else None

    def _begin(self) -> None:
        """In a process that has logged nothing so far."""
        self._pid = os.getpid()
        self._counts, self._last, self._dropped, self._turn = {}, {}, set(), threading.Lock()
        self._allowed, self._looked = float(BURST), time.monotonic()

    def _numbered(self, run: str) -> int:
        count = self._counts.get(run)
        if count is None:
            if len(self._counts) >= _RUNS:  # the oldest one is over, or says nothing for long
                with contextlib.suppress(StopIteration, KeyError, RuntimeError):
                    oldest = next(iter(self._counts))
                    del self._counts[oldest]
                    self._last.pop(oldest, None)
                    self._dropped.discard(oldest)
            count = self._counts.setdefault(run, itertools.count(1))
        return next(count)

    def _may(self) -> bool:
        """Is there room for a line in this second?"""
        if self._allowed < 1.0:
            now = time.monotonic()
            self._allowed = min(float(BURST), self._allowed + (now - self._looked) * RATE)
            self._looked = now
            if self._allowed < 1.0:
                return False
        self._allowed -= 1.0
        return True

    def _text(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = self._formatter.formatException(record.exc_info)
        text = "\n".join(filter(None, [text, record.exc_text, record.stack_info]))
        for secret in (*self._secrets, *self._of_runs):
            text = text.replace(secret, HIDDEN)
        return text.encode("utf-8", "backslashreplace").decode()


class Forwarding(logging.Handler):
    """Hands what is logged to the outlet. It has no lock."""

    def __init__(self, outlet: LogOutlet) -> None:
        super().__init__()
        self._outlet = outlet

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand it over; what is wrong with a record is said by the other ones, which write it out too."""
        with contextlib.suppress(Exception):
            self._outlet.write(record)
        return True


class Natural(logging.Filter):
    """Lets through what this worker's own log is to have, while records are made that only a run wants."""

    def __init__(self, outlet: LogOutlet) -> None:
        super().__init__()
        self._outlet = outlet

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it through, unless it is only there for a run."""
        natural = self._outlet.natural
        return natural is None or record.levelno >= natural or _has_level(record.name)


def _cut(name: str) -> str:
    """Return the beginning of a name, in so few bytes."""
    return name[:NAME] if name.isascii() else name.encode("utf-8", "replace")[:NAME].decode("utf-8", "ignore")


def _is_ours(name: str) -> bool:
    """Is it what a worker says of itself? A run hears of its messages in another way."""
    return name.startswith("celerypipe.") and not name.startswith("celerypipe.nodes.")


def _is_about_tasks(record: logging.LogRecord) -> bool:
    """Is it what Celery says of each task, which no run asked for?"""
    return record.levelno < logging.WARNING and record.name.startswith(("celery.app.", "celery.worker."))


def _has_level(name: str) -> bool:
    """Has somebody given a level to a logger, or to one above it?"""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None and logger is not logging.root:
        if logger.level:
            return True
        logger = logger.parent
    return False


#: That of this process.
outlet = LogOutlet()
