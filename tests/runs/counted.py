"""Counted messages through one worker while Redis, or the way to it, is in trouble; used by the tests of such faults.

The short form takes one pool for each trouble, and seconds; CELERYPIPE_FAULTS=long takes all pools, and ten seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from celerypipe import Message, Runner
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import RunningWorker
from tests.servers.extent import LONG

#: Longer than the lease of a bell.
SECONDS = 10.0 if LONG else 3.5
#: Messages that follow when the trouble is over.
AFTER = 300
#: Messages of one more run.
AGAIN = 20


def lasting(seconds: float = SECONDS) -> None:
    """Let a trouble last: how long it lasts is what is tested."""
    threading.Event().wait(seconds)


class Counted:
    """A run of numbered messages through one worker, which goes on for as long as the trouble, and what it said."""

    def __init__(self, url: str, queue: str, worker: RunningWorker, **options: Any) -> None:
        self.worker = worker
        self.url = url
        self.said: list[str] = []
        self.sent = 0
        self._over = threading.Event()
        self.pipeline = warped("tests.nodes.remote.Echo", queue, **{"configuration": {"delay": 0.002}, **options})
        self.reading = Reading(Runner(url, on_event=self.said.append).stream(self.pipeline, self._numbers()))
        self.reading.wait_for(200)

    def _numbers(self) -> Iterator[Message]:
        left = AFTER
        while left:
            yield Message(self.sent)
            self.sent += 1
            left -= self._over.is_set()

    def assert_all_once_in_order(self) -> None:
        """The trouble is over: everything arrives, and the same worker process takes a new bell: not dead, not deaf."""
        over, before = time.monotonic(), len(self.reading.out)
        self._over.set()
        self.reading.wait_for(before + 1)
        print(f"recovered within {time.monotonic() - over:.1f} s")  # a figure for docs/reliability.md
        assert self.reading.payloads() == list(range(self.sent)), self.worker.text()
        assert self.worker.process.poll() is None, self.worker.text()
        again = Reading(Runner(self.url).stream(self.pipeline, map(Message, range(AGAIN))))
        try:
            assert again.payloads() == list(range(AGAIN))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.worker.text()}") from None
