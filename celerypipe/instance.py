"""A warm node: made, configured and warmed up once, then handed one message after another. Both wings use it."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from celerypipe.catalogue import Entry
from celerypipe.contract import Node, Proc, Sink
from celerypipe.deadman import DeadMan
from celerypipe.errors import CelerypipeError, ConfigError, NodeFailed
from celerypipe.message import Message

#: Seconds between an interrupt that had no effect and the end of the process.
GRACE = 2.0

Given = TypeVar("Given")
Found = TypeVar("Found")


class Interrupted(BaseException):
    """Raised inside ``update`` by an :class:`Alarm`; a BaseException, so that ``except Exception`` lets it through."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Instance:
    """One node object and its life. It is lent to one user at a time."""

    def __init__(
        self, entry: Entry, configuration: Mapping[str, Any] | None, *, name: str = "", folder: Path | None = None
    ) -> None:
        self.entry = entry
        #: None: a function that is called, with its arguments in each message.
        self.configuration = dict(configuration) if configuration is not None else None
        self.name = name
        self.folder = folder
        #: Where a sink notes what it wrote, see :attr:`celerypipe.contract.Sink.record`.
        self.record: Path | None = None
        self.node: Node | None = None
        #: Mean seconds a message takes, or None before the first one; kept by who hands messages over.
        self.mean: float | None = None
        #: What a stateful node remembers right after ``warmup``, as bytes; kept by who serves it.
        self.initial: bytes | None = None

    def warm(self) -> Node:
        """Make the node, configure it and warm it up; at once when that was done before.

        Raises :class:`ConfigError` for wrong arguments, :class:`NodeFailed` for a failing ``configure`` or ``warmup``.
        """
        if self.node is not None:
            return self.node
        node = self.entry.create(self.configuration, name=self.name, folder=self.folder)
        if isinstance(node, Sink):
            node.record = self.record
        for moment in (node.configure, node.warmup):
            try:
                moment()
            except ConfigError as error:  # a setting is wrong, and the node says which
                _let_go(node)
                raise ConfigError(f"{self.name or self.entry.mark}: {error}") from None
            except Exception as error:  # whatever user code raises becomes our typed failure, cause attached
                _let_go(node)
                raise NodeFailed(
                    f"{self.name or self.entry.mark}: {moment.__name__}() failed: {brief(error)}",
                    node=self.name,
                    remote_traceback=trace(error),
                ) from error
        self.node = node
        return node

    def update(self, message: Message) -> list[Message]:
        """Hand one message over and return all that comes out, in order; a generator is run to its end here."""
        node = self.node
        if isinstance(node, Proc):
            return as_messages(node.update(message), self.name or self.entry.mark)
        if isinstance(node, Sink):
            node.update(message)
            return []
        raise ConfigError(f"{self.entry.mark} is a {self.entry.node.type}; only a proc or a sink receives messages")

    def destroy(self) -> None:
        """Let go of the node; what its ``destroy`` raises is logged, since nothing waits for it any more."""
        node, self.node = self.node, None
        if node is not None:
            _let_go(node)


def _let_go(node: Node) -> None:
    try:
        node.destroy()
    except Exception:  # the node is leaving either way
        node.logger.exception("destroy() failed")


def as_messages(output: Any, name: str) -> list[Message]:
    """Return what ``update`` returned as a list; anything that is no message is a :class:`NodeFailed`."""
    if output is None:
        return []
    if isinstance(output, Message):
        return [output]
    if isinstance(output, Iterable) and not isinstance(output, (str, bytes, Mapping)):
        messages = list(output)
        for number, item in enumerate(messages):
            if not isinstance(item, Message):
                raise NodeFailed(
                    f"{name}: output {number} is a {type(item).__name__}, not a Message; "
                    "return message.with_payload(...)",
                    node=name,
                )
        return messages
    raise NodeFailed(
        f"{name}: update() returned a {type(output).__name__}, not a Message; return None, a Message "
        "(message.with_payload(...)) or an iterable of them",
        node=name,
    )


def brief(error: BaseException) -> str:
    """One line about an exception: its type and text; our own errors speak for themselves."""
    if isinstance(error, CelerypipeError):
        return str(error)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # user code, which must not take the activation with it
        text = "its text cannot be had, for its __str__ failed"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def trace(error: BaseException) -> str:
    """The traceback as text, without celerypipe's own frames at its top; nothing for an error of our own."""
    if isinstance(error, CelerypipeError):
        return trace(error.__cause__) if error.__cause__ is not None else ""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_next is not None and _is_ours(frames):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def _is_ours(frames: TracebackType) -> bool:
    return Path(frames.tb_frame.f_code.co_filename).parent == Path(__file__).parent


class Alarm:
    """Interrupts ``update`` in the main thread: after its timeout, or when another thread says so.

    Installed around an activation on prefork and solo workers. A process that does not react to the interrupt within
    ``grace`` seconds of a timeout (a C loop that holds the GIL) is ended from a C thread by :mod:`faulthandler`; None:
    it is left alone.
    """

    def __init__(self, grace: float | None = GRACE) -> None:
        self._grace = grace
        self._inside = False
        self._running = ""
        self._until = 0.0
        self._shot: tuple[str, str] | None = None
        self._guarded_until = 0.0
        self._previous: Any = None

    def __enter__(self) -> Alarm:
        self._previous = signal.signal(signal.SIGALRM, self._ring)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.unguard()
        signal.signal(signal.SIGALRM, self._previous)

    def call(
        self,
        timeout: float | None,
        function: Callable[[Given], Found],
        message: Given,
        name: str = "",
    ) -> Found:
        """Call the function, with one message or several; raises :class:`Interrupted` inside it when time is over.

        ``name`` is what :meth:`interrupt` calls this message.
        """
        self._shot, self._running = None, name
        self._until = time.monotonic() + timeout if timeout is not None else float("inf")
        try:
            self._inside = True  # first: a signal before it would be nobody's, and none would follow
            if timeout is None:
                self.unguard()  # that of the message before would end this one
            else:
                self._guard(timeout)
                signal.setitimer(signal.ITIMER_REAL, timeout, 0.1)
            return function(message)
        finally:
            self._inside = False
            if timeout is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def interrupt(self, reason: str, name: str = "") -> None:
        """Interrupt what runs now, or only the message of that name; may be called from any thread."""
        self._shot = (reason, name)
        if self._inside:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """For the length of a block nothing has to be ended, however long it takes."""
        self.unguard()
        yield

    def unguard(self) -> None:
        """Call before an idle wait: nothing runs that would have to be ended."""
        if self._guarded_until:
            faulthandler.cancel_dump_traceback_later()
            self._guarded_until = 0.0

    def _guard(self, timeout: float) -> None:
        # Arming starts a thread (about 50 µs), so an armed guard is kept while it leaves at least half the grace.
        # It is not kept if it is that of a node with much more time.
        if self._grace is None:
            return
        until = time.monotonic() + timeout + self._grace
        if not until - self._grace / 2 <= self._guarded_until <= until + self._grace:
            self._guarded_until = until
            faulthandler.dump_traceback_later(timeout + self._grace, exit=True, file=sys.__stderr__ or 2)

    def _ring(self, _signal: int, _frame: FrameType | None) -> None:
        if not self._inside:
            return
        shot, self._shot = self._shot, None
        if shot is not None and shot[1] in ("", self._running):
            reason = shot[0]
        elif time.monotonic() >= self._until:
            reason = "timeout"
        else:
            return  # meant for a message that ended a moment ago
        self._inside = False
        raise Interrupted(reason)


class Unarmed:
    """Stands where an :class:`Alarm` cannot be: a thread that is not the main one cannot be interrupted.

    ``switch`` ends the process if one of its threads holds the GIL for good.
    """

    def __init__(self, switch: DeadMan | None = None) -> None:
        self._switch = switch

    def __enter__(self) -> Unarmed:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(
        self,
        timeout: float | None,
        function: Callable[[Given], Found],
        message: Given,
        name: str = "",
    ) -> Found:
        """Call the function, however long it takes."""
        if self._switch is None:
            return function(message)
        self._switch.begin(timeout)
        try:
            return function(message)
        finally:
            self._switch.end()

    def interrupt(self, reason: str, name: str = "") -> None:
        """Nothing to be done from here; the result will be dropped."""

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """For the length of a block this thread may hold the GIL for long."""
        if self._switch is not None:
            self._switch.begin(None)
        try:
            yield
        finally:
            if self._switch is not None:
                self._switch.end()

    def unguard(self) -> None:
        """Nothing to stand down."""
