"""Callbacks of users: run one after another in a thread of their own, where they hold nobody up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Callbacks:
    """The thread for callbacks of one session; there is none before the first callback.

    Whoever settles a call holds that submission's lock here, and who sends calls looks at it under another: so this has
    one of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Run it after those that were given before."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="celerypipe-callbacks")
        try:
            self._executor.submit(work)
        except RuntimeError:  # the session is over, or Python itself ends
            work()

    def close(self) -> None:
        """Run what was given, then end; nobody waits for it."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
