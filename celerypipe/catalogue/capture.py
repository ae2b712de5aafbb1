"""Catches what a node prints for one message on its way to the terminal, which it reaches as ever.

A :class:`Tap` stands in for ``sys.stdout`` and ``sys.stderr``, and for the streams of log handlers that write there. It
passes all on, and tells the recorder of its context, so that two threads with a message each do not mix. What does not
go through these objects is not caught: C code and child processes that write to the descriptor themselves, and threads
that a node starts outside of its context.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celerypipe.message.console import Console, Line, Stream

#: Characters that are kept of what is printed for one message: the first half of them and the last half.
MOST = 65_536
#: Characters in one piece: what is longer is cut here and there, not kept or left out as a whole.
PIECE = 4_096


class _Piece:
    """What was written to one stream without a word of the other one between, up to the end of its line."""

    __slots__ = ("at", "parts", "size", "stream")

    def __init__(self, at: float, stream: Stream, text: str) -> None:
        self.at = at
        self.stream = stream
        self.parts = [text]
        self.size = len(text)

    def lines(self) -> Iterator[Line]:
        # Half a pair of surrogates, as in the name of a file that is no UTF-8, cannot travel.
        whole = "".join(self.parts).encode("utf-8", "backslashreplace").decode()
        for text in whole.splitlines(keepends=True):
            yield Line(self.at, self.stream, text)


class Recorder:
    """Keeps what is printed from now on. Of more than ``most`` characters the middle is left out."""

    def __init__(self, most: int = MOST) -> None:
        self._half = most // 2
        self._started = time.time()
        self._began = time.perf_counter()
        # A generator that is collected while something is printed may print itself.
        self._lock = threading.RLock()
        self._head: list[_Piece] = []
        self._tail: deque[_Piece] = deque()
        self._room = self._half
        self._held = 0
        self._cut = 0

    def write(self, stream: Stream, text: str) -> None:
        """Keep a piece."""
        at = time.perf_counter() - self._began
        with self._lock:
            for start in range(0, len(text), PIECE):
                self._add(at, stream, text[start : start + PIECE])

    def _add(self, at: float, stream: Stream, text: str) -> None:
        if self._room > 0 and not self._tail:
            self._room -= len(text)
            self._append(self._head, at, stream, text)
            return
        self._held += len(text)
        self._append(self._tail, at, stream, text)
        while self._held > self._half + PIECE:
            gone = self._tail.popleft().size
            self._held -= gone
            self._cut += gone

    @staticmethod
    def _append(pieces: list[_Piece] | deque[_Piece], at: float, stream: Stream, text: str) -> None:
        last = pieces[-1] if pieces else None
        goes_on = last is not None and last.stream == stream and not last.parts[-1].endswith("\n")
        if last is not None and goes_on and last.size + len(text) <= PIECE:
            last.parts.append(text)
            last.size += len(text)
        else:
            pieces.append(_Piece(at, stream, text))

    def console(self, worker: str = "") -> Console:
        """Return what was printed until now; ``worker``: where that is."""
        with self._lock:
            seconds = time.perf_counter() - self._began
            lines = [line for piece in self._head for line in piece.lines()]
            if self._cut:
                at = self._tail[0].at if self._tail else seconds
                lines.append(Line(at, "", f"… {self._cut:,} characters left out …\n"))
            lines += [line for piece in self._tail for line in piece.lines()]
            return Console(tuple(lines), self._started, seconds, worker, self._cut)


#: Who keeps what is printed in this context; None: nobody.
_recorder: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("celerypipe_recorder", default=None)
_attaching = threading.Lock()


class Tap:
    """Stands in for a stream: all it is asked goes there; what is written to it is kept too, if somebody does."""

    def __init__(self, name: Stream, stream: Any) -> None:
        self._name = name
        self._stream = stream

    def write(self, text: str) -> Any:
        """Pass it on. What the stream makes of it (Celery makes log lines) is not kept once more."""
        recorder = _recorder.get()
        if recorder is None or not isinstance(text, str):  # what is no text is for the stream to refuse
            return self._stream.write(text)
        recorder.write(self._name, text)
        return self._unrecorded(self._stream.write, text)

    def flush(self) -> None:
        """Pass it on."""
        self._unrecorded(self._stream.flush)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    @staticmethod
    def _unrecorded(method: Callable[..., Any], *given: str) -> Any:
        token = _recorder.set(None)
        try:
            return method(*given)
        finally:
            _recorder.reset(token)

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # a copy that is being made has none yet
            raise AttributeError(name)
        return getattr(self._stream, name)


def _attach() -> None:
    """Let the streams of this process be taps. They stay so: others may have taken them over by the end of a message.

    Whoever sets ``sys.stdout`` anew, as tests and notebooks do, has that tapped in its turn.
    """
    if type(sys.stdout) is Tap and type(sys.stderr) is Tap:
        return
    with _attaching:
        names: tuple[Stream, ...] = ("stdout", "stderr")
        for name in names:
            stream = getattr(sys, name)
            if stream is None or type(stream) is Tap:
                continue
            setattr(sys, name, Tap(name, stream))
            for handler in _handlers():
                if handler.stream is stream or handler.stream is getattr(sys, f"__{name}__"):
                    handler.setStream(Tap(name, handler.stream))


def _handlers() -> Iterator[logging.StreamHandler[Any]]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                yield handler


@contextlib.contextmanager
def captured(recorder: Recorder | None) -> Iterator[None]:
    """Keep what is printed within a block; without a recorder nothing is."""
    if recorder is None:
        yield
        return
    _attach()
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)


def here() -> str:
    """Return this machine and process, as a console names its worker."""
    return f"{socket.gethostname()}, process {os.getpid()}"
