"""Callbacks of users: run one after another, by a thread that nothing else waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Callbacks:
    """Whoever settles a call adds what it set off. He holds that call's own lock, so none but ours is taken here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None

    def add(self, work: Callable[[], None]) -> None:
        """Have this done soon."""
        with self._lock:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="celerypipe-callbacks")
        try:
            self._thread.submit(work)
        except RuntimeError:  # the session, or Python itself, is at its end
            work()

    def close(self) -> None:
        """Take no more; what was added is done."""
        with self._lock:
            if self._thread is not None:
                self._thread.shutdown(wait=False)
