"""What a runner does with functions: submit, map, await, and be an executor."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from celerypipe.message.files import File
from celerypipe.runner.functions.call import Call
from celerypipe.runner.functions.executor import CallExecutor, end_with
from celerypipe.runner.functions.mapping import as_they_come, in_order
from celerypipe.runner.functions.session import Session

T = TypeVar("T")


class Submitting:
    """The half of a runner that calls functions. ``begin`` makes sessions: one with the first call, which ends with
    :meth:`close`, and one for each executor.

    As a context manager it waits for its calls at the end, and cancels them where the block raised.
    """

    def __init__(self, begin: Callable[[], Session]) -> None:
        self._begin = begin
        self._session: Session | None = None
        self._beginning = threading.Lock()
        #: Forgets to end the session with this object.
        self._letting_go: Callable[[], object] = bool

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Call[T]:
        """Call a function under ``@node`` on a worker of its queue, and return a future at once.

        Arguments and results are exact, as everything that travels: tuples, dtypes, None. Another call may be an
        argument, also inside lists, tuples and dicts: then this one starts when that is through, and fails without
        starting if that failed. Do not change arrays that you gave before the call is done; lists and dicts you may::

            with Runner(redis="redis://host:6379/0") as runner:
                call = runner.submit(spectrum, samples, rate=16000)
                call.result(timeout=5)

        Raises :class:`~celerypipe.ConfigError` for what is no function of a module under ``@node``, TypeError for
        arguments that it does not take, :class:`~celerypipe.CodecError` for arguments that cannot travel.
        """
        return self._begun().submit(function, arguments, named)

    def map(
        self, function: Callable[..., T], many: Iterable[Any], /, *constants: Any, ordered: bool = True, **named: Any
    ) -> Iterator[T]:
        """Call a function with each of many values as its first argument, and yield what it returns.

        Only some hundred values are taken from ``many`` ahead of what was yielded. ``ordered`` False: results come as
        they are done. Leaving the loop early cancels the rest::

            for found in runner.map(spectrum, recordings, 16000):
                ...
        """
        session = self._begun()

        def submit(value: Any, _: object = self) -> Call[T]:  # a runner that is read from is not let go
            return session.submit(function, (value, *constants), named)

        session.look_at(function)
        return in_order(submit, many) if ordered else as_they_come(submit, many)

    async def asubmit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> T:
        """Call a function on a worker and await its result: ``await runner.asubmit(spectrum, samples, 16000)``.

        Cancelling the task cancels the call. ``asyncio.wrap_future(runner.submit(...))`` gives a future instead.
        """
        loop = asyncio.get_running_loop()
        session = self._session
        sends = any(isinstance(each, File) for each in (*arguments, *named.values()))
        if session is not None and session.knows(function) and not sends:
            call: Call[T] = self.submit(function, *arguments, **named)
        else:  # Redis and the workers are looked at first, or a file is sent
            making = loop.run_in_executor(None, lambda: self.submit(function, *arguments, **named))
            try:
                call = await asyncio.shield(making)
            except asyncio.CancelledError:
                making.add_done_callback(_cancel_made)
                raise
        settled = asyncio.Event()

        def tell(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settled.set)

        Future.add_done_callback(call, tell)  # at once, not behind the callbacks of users
        try:
            await settled.wait()
        except asyncio.CancelledError:
            call.cancel()
            raise
        if call.cancelled():
            raise asyncio.CancelledError
        return await loop.run_in_executor(None, call.result) if call.is_apart else call.result()

    def executor(self) -> CallExecutor:
        """Return a ``concurrent.futures.Executor`` that runs functions on workers; its calls are separate."""
        return CallExecutor(lambda: self._begin())  # and with a hold on this runner, which says where its Redis is

    def close(self, *, cancel: bool = False) -> None:
        """End the calls of this runner: wait for them, or cancel them. Results can still be read."""
        with self._beginning:
            session, self._session = self._session, None
            self._letting_go()
        if session is not None:
            session.close(cancel=cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def _begun(self) -> Session:
        session = self._session
        if session is not None and session.pid != os.getpid():
            # A forked child has neither its threads nor a right to its connections, and its lock may be held for ever.
            self._beginning, self._session = threading.Lock(), None
            _of_parents.append(session)
        with self._beginning:
            session = self._session
            if session is not None and session.course.over.is_set():
                session.close(cancel=True)
                session = None
            if session is None:
                session = self._session = self._begin()
                self._letting_go()
                self._letting_go = end_with(self, session)
            return session


#: Sessions of the process that this one was forked from: never closed here, so that nothing is said on their lines.
_of_parents: list[Session] = []


def _cancel_made(made: asyncio.Future[Call[Any]]) -> None:
    """Who waited for a call to be submitted is gone."""
    if not made.cancelled() and made.exception() is None:
        made.result().cancel()
