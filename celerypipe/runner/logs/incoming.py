"""The lines of one run on their way in: read with its replies, put in order, and shown by a thread of their own.

A terminal that stands still holds up nothing but that thread; what has no room before it then is counted and left out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from celerypipe.mailbox.holder import Holder, Process
from celerypipe.mailbox.logs import REMEMBERED, LogReader
from celerypipe.message.logs import LogLine
from celerypipe.redis.signing import Keyring, refused
from celerypipe.runner.logs.ordering import MOST, Ordering

logger = logging.getLogger(__name__)

#: Seconds that the end of a run waits for lines of which a result told.
LAST_LINES = 1.0


class Incoming:
    """Takes entries of the stream of a run, and gives its lines to ``show``, one at a time."""

    def __init__(
        self, run: str, keyring: Keyring | None, show: Callable[[LogLine], None], hide: Callable[[str], str]
    ) -> None:
        """``hide``: what takes the secrets of the run out of a text."""
        self._reader = LogReader(run, keyring, whole=True)
        self._run = run
        self._show = show
        self._hide = hide
        self._keyring = keyring
        self._lines = Ordering()
        self._lost = 0
        #: The last numbers that results told of, by life of the worker and process.
        self._told: dict[tuple[str, int], int] = {}
        self._changed = threading.Condition()
        self._closing = self._is_left = False
        self._thread: threading.Thread | None = None

    def take(self, items: Sequence[Any]) -> None:
        """Take entries of the stream."""
        lines: list[LogLine] = []
        for item in items:
            found = self._reader.read(item)
            lines += [replace(line, text=self._hide(line.text)) for line in found.lines]
            if found.refused and self._keyring is not None and self._keyring.refusals.add("log", self._run):
                logger.warning("%s", refused("line of a log", f"run {self._run}"))
        with self._changed:
            room = max(0, MOST - len(self._lines))
            self._lost += max(0, len(lines) - room)
            self._lines.put(lines[:room], time.monotonic())
            if lines and self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._loop, name="celerypipe-logs", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def told(self, worker: str, number: int) -> None:
        """A result of that activation says that its process has logged so many lines for this run."""
        if number:
            process = Holder.read(worker).process
            place = process.life, process.pid
            self._told[place] = max(number, self._told.pop(place, 0))
            if len(self._told) > REMEMBERED:
                del self._told[next(iter(self._told))]

    def close(self) -> None:
        """Wait a moment for the last lines, then show all."""
        until = time.monotonic() + LAST_LINES
        with self._changed:
            while (left := until - time.monotonic()) > 0 and not self._is_complete():
                self._changed.wait(left)
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(LAST_LINES)
            self._is_left = True

    def _is_complete(self) -> bool:
        numbers, told = self._reader.numbers.copy(), self._told.copy()  # there may be more while this looks at them
        read = {(Process.read(worker).life, pid): number for (worker, pid), number in numbers.items()}
        return all(read.get(place, 0) >= number for place, number in told.items())

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._closing and (due := self._lines.due_in(time.monotonic())) != 0.0:
                    self._changed.wait(due)
                closing, lost = self._closing, self._lost
                self._lost = 0
                lines = list(self._lines.ready(time.monotonic(), all_of_them=closing))
            if lost and lines:
                lines[0] = replace(lines[0], dropped=lines[0].dropped + lost)
            for place, line in enumerate(lines):
                if self._is_left:
                    why = "who shows them is slower than they came"
                    logger.warning("%d lines are not shown, %s: celerypipe logs %s", len(lines) - place, why, self._run)
                    return
                try:
                    self._show(line)
                except Exception:  # who cannot show one may show the next
                    logger.exception("a line of a worker's log cannot be shown")
            if closing:
                return
