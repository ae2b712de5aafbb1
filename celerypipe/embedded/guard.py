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

from celerypipe.heartbeat.descendants import tidies
from celerypipe.heartbeat.procfs import KILL, STOP, LinuxProcess, children, process_of, read

#: A process: its number, and when it began.
Key = tuple[int, int]
#: Seconds for those who tidy up, and end by themselves then.
TIDYING = 1.5

#: Seconds after which those are left that cannot be ended: of another user (sudo), or at work in the kernel.
STUBBORN = 10.0

#: Signals that are handed on to the process below.
_PASSED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
#: Keys of a terminal reach both of them, from the kernel; that it hung up is told to the guard alone, if it leads the
#: session.
_KEYS, _BY_KERNEL = (signal.SIGINT, signal.SIGQUIT), 0x80  # SI_KERNEL
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def guarded(spared: Callable[[], Collection[Key]] = tuple) -> None:
    """Go on in a child of this process, which becomes its guard and never returns.

    For a process without threads: a fork has but one. ``spared``: which of its descendants may outlive it, asked when
    it is gone.
    """
    if not sys.platform.startswith("linux") or process_of(os.getpid()) is None:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # of one that is ignored nobody would hear, nor of how a child ended
    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:  # which tells of the guard's death
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
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


def end_strangers(own: Collection[int], spared: Callable[[], Collection[Key]] = tuple) -> None:
    """End the children of this process that it did not start, as they lost their parent, and all below them.

    ``own``: what its main thread started, which is the one that asks this, and gets those. Those of its other threads
    are left alone. ``spared``: who of them may go on, asked if there are any.
    """
    here = os.getpid()
    strangers = [pid for pid in map(int, read(f"/proc/{here}/task/{here}/children").split()) if pid not in own]
    free = spared() if strangers else ()
    for one in filter(None, map(process_of, strangers)):
        if one.state in b"ZX":
            _reap(one.pid)
        elif one.key not in free:
            _end([each for each in (one, *_below(one.pid, free)) if not tidies(each.pid)])


def end_below(spared: Collection[Key] = (), *, patience: float = TIDYING) -> None:
    """End all that comes of this process, and see it gone; who tidies up gets some seconds for that."""
    began = time.monotonic()
    while left := _below(os.getpid(), spared):
        spent = time.monotonic() - began
        _end([one for one in left if not (spent < patience and tidies(one.pid))])
        while _reap(-1):
            pass
        if spent > patience + STUBBORN:
            pids = ", ".join(str(one.pid) for one in left)
            os.write(2, f"celerypipe: these processes cannot be ended from here: {pids}\n".encode())
            return
        time.sleep(0.01)


def _watch(child: int, heard: Collection[signal.Signals]) -> int:
    """Wait for the end of the child, and hand signals on to it; return how it ended, as the system says that."""
    while True:
        told = signal.sigwaitinfo(heard)
        if told.si_signo == signal.SIGCHLD:
            while (found := _reap(-1)) is not None:
                if found[0] == child:
                    return found[1]
        elif told.si_code != _BY_KERNEL or told.si_signo not in _KEYS:
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
        os._exit(128 + number)  # process 1 of a container does not end by a signal of its own
    os._exit(os.waitstatus_to_exitcode(status))


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


def _reap(pid: int) -> tuple[int, int] | None:
    """Take the status of a child that ended; None: there is none."""
    try:
        found = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return found if found[0] else None


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
