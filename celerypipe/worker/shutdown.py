"""A worker is told to end: by SIGTERM, SIGINT, SIGQUIT, SIGHUP, because its terminal was closed, or from afar.

Celery's own handlers differ from signal to signal and from pool to pool: some wait without end, some for ten seconds
although nothing is at work, one of them inside the handler; a second signal that interrupts the first may lock up for
good; SIGHUP calls nobody back, and starts ``python -m celery`` wrongly. Here it is one thing: what is at work gets some
time, the rest is handed back at once; told again, or by SIGQUIT, what is at work is handed back too.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from celery.apps.worker import safe_say
from celery.platforms import close_open_fds
from celery.worker import state
from celery.worker.control import control_command

from celerypipe.process import log
from celerypipe.process.terminals import Terminals
from celerypipe.worker.flag import SharedFlag

#: The signals that tell a worker to end.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Shutdown:
    """How one worker ends. Made before Celery installs its signal handlers."""

    def __init__(self, flag: SharedFlag) -> None:
        self._flag = flag
        self._call_back: Callable[[str], object] = str
        self._pid = os.getpid()
        self._terminals = Terminals()
        # As nohup and a shell in the background have it: what is ignored from the start stays so.
        self._ignored = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]

    def install(self, call_back: Callable[[str], object]) -> None:
        """Stand in for Celery's handlers; ``call_back`` is called inside one, once, with the name of its signal."""
        self._call_back = call_back
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN if number in self._ignored else self._told)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a worker that starts anew began with SIGHUP held back
        control_command(name="shutdown")(self._told_from_afar)

    def _told_from_afar(self, _panel: Any, **_: Any) -> dict[str, str]:
        """Shut down this worker, as SIGTERM does."""  # which ``celery control --list`` shows
        self._told(signal.SIGTERM, None)
        return {"ok": "it ends when what is at work has ended; once more ends it now"}

    def _told(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a pool child has inherited this; the worker tells it by the flag
        name = signal.Signals(number).name
        if number == signal.SIGHUP and self._terminals:
            self._terminals.let_go()
        first = not self._flag.is_raised()
        if number == signal.SIGQUIT or not first:
            self._flag.hurry()
            _say(f"{name}: what is at work is handed back now")
        if not first:
            return
        self._flag.raise_it()
        restart = number == signal.SIGHUP and not self._terminals
        if restart:
            atexit.register(_again)
        if number != signal.SIGQUIT:
            what = "starts anew" if restart else "ends"
            _say(f"{name}: it {what} when what is at work has ended; once more ends it now")
        self._call_back(name)
        state.should_stop = os.EX_OK


def _say(text: str) -> None:
    """Say something inside a signal handler: without a lock, so not through the log."""
    if log.is_json():
        with contextlib.suppress(OSError):
            os.write(2, f"{log.line(logging.WARNING, text, text)}\n".encode())
    else:
        safe_say(f"worker: {text}", sys.__stdout__)


def _again() -> None:
    """Become the worker that was typed, however it was typed; Celery's own restart knows only its own script."""
    close_open_fds([sys.__stdin__, sys.__stdout__, sys.__stderr__])
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # until somebody hears it: it would end what comes up
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # the very command line of this process
