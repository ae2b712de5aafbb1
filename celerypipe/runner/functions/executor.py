"""``concurrent.futures.Executor`` over workers: who has a ProcessPoolExecutor changes two lines."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any

from celerypipe.runner.functions.call import Call
from celerypipe.runner.functions.session import Session


class CallExecutor(Executor):
    """What :meth:`Runner.executor` returns. It has a session of its own, which ends with it::

    with Runner(redis=...).executor() as executor:
        for page in executor.map(render, pages):
            ...
    """

    def __init__(self, session: Callable[[], Session]) -> None:
        self._begin = session
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._shut = False
        #: Forgets to end the session with this object.
        self._letting_go: Callable[[], object] = bool

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Call[Any]:
        """Call a function under ``@node`` elsewhere, as :meth:`Runner.submit`."""
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._session is None:
                self._session = self._begin()
                self._letting_go = end_with(self, self._session)
            session = self._session
        return session.submit(fn, args, kwargs)

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Any]:
        """Call it with an item of each iterable, until one of them ends; all are submitted at once.

        ``timeout``: seconds from now until the last result must be there, else ``TimeoutError``. ``chunksize`` means
        nothing here: calls that wait are sent together as they are.
        """
        end = None if timeout is None else time.monotonic() + timeout
        calls = [self.submit(fn, *items) for items in zip(*iterables, strict=False)]

        def results() -> Iterator[Any]:
            try:
                calls.reverse()
                while calls:  # none is held any longer once its result was given
                    left = None if end is None else end - time.monotonic()
                    yield _result(calls, left)
            finally:
                for call in calls:
                    call.cancel()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. ``wait``: return when those that were taken are done; ``cancel_futures``: cancel those
        that no worker was given yet."""
        with self._lock:
            self._shut, session = True, self._session
            self._letting_go()
        if session is None:
            return
        if cancel_futures:
            session.cancel_waiting()
        if wait:
            session.close(cancel=False)
        else:
            _end(session)


def _result(calls: list[Call[Any]], left: float | None) -> Any:
    call = calls[-1]
    try:
        return call.result(left)
    finally:
        calls.pop()
        call.cancel()
        del call


def end_with(owner: object, session: Session) -> Callable[[], object]:
    """Let a session come to its end, with all of its calls, when its owner is gone that nobody closed.

    Return what undoes that: until then the session is held.
    """
    finalizer = weakref.finalize(owner, _end, session)
    finalizer.atexit = False
    return finalizer.detach


def _end(session: Session) -> None:
    if session.pid == os.getpid():
        threading.Thread(target=session.close, kwargs={"cancel": False}, daemon=True).start()
