"""Nothing that a process started outlives it, whatever kills it: the guard, a process above it, sees to that.

Both gather what loses its parent (they are subreapers of Linux). The guard waits for the process below it, and then
ends all that is left there; that one ends in good order if the guard is killed. A group or a session of its own, in
which a program left its parents, hides nothing from them. On other systems there is no guard.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection

from celerypipe.heartbeat.descendants import TRACKERS
from celerypipe.heartbeat.procfs import KILL, STOP, LinuxProcess, children, process_of, read

#: A process: its number, and when it began.
Key = tuple[int, int]
#: Whose command has one of these ends by itself, after some tidying and last words, for which it has so many seconds.
TIDIERS = (*TRACKERS, b"heartbeat/monitor.py")
TIDYING = 1.5

#: Signals that are handed on to the process below; SIGINT of a terminal reaches it anyway.
_PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_BY_KERNEL = 0x80  # SI_KERNEL: a key of the terminal, not somebody's kill
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def guarded(spared: Callable[[], Collection[Key]] = tuple) -> None:
    """Go on in a child of this process, which becomes its guard and never returns.

    For a process without threads. ``spared``: which of its descendants may outlive it, asked when it is gone.
    """
    if not sys.platform.startswith("linux") or process_of(os.getpid()) is None:
        return
    ignored = {number for number in _PASSED if signal.getsignal(number) == signal.SIG_IGN}
    heard = {*_PASSED, signal.SIGCHLD} - ignored
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    child = os.fork()
    if child:
        _end_as(_watch(child, heard), child, spared)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if os.getppid() != guard:  # it was killed before that was armed
        os._exit(1)


def end_strangers(own: Collection[int], spared: Collection[Key] = ()) -> None:
    """End the children of this process that it did not start, as they lost their parent, and all below them."""
    strangers = [one for pid in children(os.getpid()) if pid not in own and (one := process_of(pid)) is not None]
    for one in strangers:
        if one.state in b"ZX":
            _reap(one.pid)
        elif one.key not in spared and not _tidies(one.pid):
            _end([one, *_below(one.pid, spared)])


def end_below(spared: Collection[Key] = (), *, patience: float = TIDYING) -> None:
    """End all that comes of this process, and see it gone; who tidies up gets some seconds for that."""
    until = time.monotonic() + patience
    while left := _below(os.getpid(), spared):
        tidying = time.monotonic() < until
        _end([one for one in left if not (tidying and _tidies(one.pid))])
        while _reap(-1):
            pass
        time.sleep(0.01)


def _watch(child: int, heard: Collection[signal.Signals]) -> int:
    """Wait for the end of the child, and hand signals on to it; return how it ended, as the system says that."""
    while True:
        told = signal.sigwaitinfo(heard)
        if told.si_signo == signal.SIGCHLD:
            while (found := _reap(-1)) is not None:
                if found[0] == child:
                    return found[1]
        elif told.si_code != _BY_KERNEL:
            os.kill(child, told.si_signo)


def _end_as(status: int, child: int, spared: Callable[[], Collection[Key]]) -> None:
    """End what it left, then this process as it ended itself."""
    end_below(spared())
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:  # which cannot be set
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _below(pid: int, spared: Collection[Key]) -> list[LinuxProcess]:
    """Return what comes of a process and lives; not those that are spared, nor what comes of them."""
    found: list[LinuxProcess] = []
    todo = [pid]
    while todo:
        for each in children(todo.pop()):
            one = process_of(each)
            if one is not None and one.key not in spared:
                todo.append(each)
                if one.state not in b"ZX":
                    found.append(one)
    return found


def _end(them: Collection[LinuxProcess]) -> None:
    """Kill them, stopped first, so that none starts another."""
    for number in (STOP, KILL):
        for one in them:
            one.send(number)


def _tidies(pid: int) -> bool:
    command = read(f"/proc/{pid}/cmdline")
    return any(tidier in command for tidier in TIDIERS)


def _reap(pid: int) -> tuple[int, int] | None:
    """Take the status of a child that ended; None: there is none."""
    try:
        found = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return found if found[0] else None


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
