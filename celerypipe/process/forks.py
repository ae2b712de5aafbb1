"""What a process that user code forks leaves to its parent, and what ends one that goes its parent's way.

A fork has all that its parent has: signal handlers, locks on files, memory that others look at. What belongs to one
process is told to :func:`keep`, and lets go of that in each fork, before any code of the user runs there. (A child that
is started by ``exec``, as ``subprocess`` does, has none of it.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from typing import NoReturn, Protocol
from weakref import WeakSet


class Parental(Protocol):
    """Something that belongs to one process and not to its forks."""

    def leave_to_parent(self) -> None:
        """Called in a fork, which has one thread."""


_kept: WeakSet[Parental] = WeakSet()
#: Another number in each fork: who finds another one after user code than before it is not who began.
generation = 0


def keep(thing: Parental) -> None:
    """Let this thing, for as long as it is there, leave its share to the parent in each process that is forked."""
    _kept.add(thing)


class _Hush(threading.local):
    """Holds signals back while this thread forks: one that comes for the child before its handlers are its own."""

    before: Iterable[int] = ()

    def begin(self) -> None:
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def end(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)

    def end_in_parent(self) -> None:
        try:
            self.end()
        except KeyboardInterrupt:  # Python forgets what is raised here, so Ctrl-C comes once more when it went on
            threading.Thread(target=_interrupt_later, args=(threading.get_ident(),), daemon=True).start()


_hush = _Hush()


def _interrupt_later(thread: int) -> None:
    """Send Ctrl-C to a thread once it has left the place above, which may take long on a busy machine."""
    place = _Hush.end_in_parent.__code__
    while any(frame.f_code is place for frame, _ in traceback.walk_stack(sys._current_frames().get(thread))):
        time.sleep(0.001)
    signal.pthread_kill(thread, signal.SIGINT)


def _leave_to_parent() -> None:
    global generation  # there is one of it in a process
    generation += 1
    try:
        for thing in list(_kept):
            thing.leave_to_parent()
        _kept.clear()
    finally:
        _hush.end()


os.register_at_fork(before=_hush.begin, after_in_parent=_hush.end_in_parent, after_in_child=_leave_to_parent)


def end(what: str) -> NoReturn:
    """End a fork that came back from user code: its parent goes on from there, and both would do the same work."""
    error = sys.exception()
    code = (error.code or 0) if isinstance(error, SystemExit) else 1
    with contextlib.suppress(Exception):
        if not isinstance(error, SystemExit):
            if error is not None:
                traceback.print_exception(error)
            text = "was forked there and came back; it ends here, its parent goes on. Let it end by os._exit()"
            print(f"{what}: process {os.getpid()} {text}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


@contextlib.contextmanager
def one_process(what: str) -> Iterator[None]:
    """Run user code within a block that only the process leaves which entered it."""
    before = generation
    try:
        yield
    finally:
        if generation != before:
            end(what)
