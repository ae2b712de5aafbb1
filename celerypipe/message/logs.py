"""A line that was logged or printed where a node runs, as its run shows it."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record of a log, which may have several lines, or one line that was printed.

    ``time``: when, by the clock of Redis, in seconds since 1970; ``text``: with the traceback, if there is one;
    ``level``: as in :mod:`logging`; ``logger``: its name; ``stream``: ``stdout`` or ``stderr`` of what was printed,
    else empty; ``host``, ``pid``, ``thread``: where; ``worker``: the id of the worker; ``run``, ``node``, ``message``:
    what it belongs to, empty where that is none; ``dropped``: so many records of its process before it are missing.
    """

    time: float
    text: str
    level: int = logging.INFO
    logger: str = ""
    stream: str = ""
    host: str = ""
    pid: int = 0
    thread: str = ""
    worker: str = ""
    run: str = ""
    node: str = ""
    message: str = ""
    dropped: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; the time as in ISO 8601, in UTC."""
        whole, part = divmod(round(self.time * 1000), 1000)
        said = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{part:03d}Z"
        return {**asdict(self), "time": said, "level": logging.getLevelName(self.level)}
