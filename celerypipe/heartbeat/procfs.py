"""Processes as Linux tells of them in /proc. Where there is no such folder, nothing is told."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what signal is made of; that costs 1 MB and several ms
import os
import time

#: The clock of /proc: when a process began is said in these, since the machine did.
TICKS = os.sysconf("SC_CLK_TCK")
KILL, STOP = _signal.SIGKILL, _signal.SIGSTOP
#: By which a process of a worker writes where its threads are: a signal that nobody else uses, heard without any lock.
DUMP = _signal.SIGRTMIN + 7 if hasattr(_signal, "SIGRTMIN") else _signal.SIGUSR2
#: Seconds it has for that.
DUMPING = 0.3


class LinuxProcess:
    """A process that is there; ``began`` tells it from others that get its number."""

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        self.pid = pid
        self.state = fields[0]
        self.parent, self.group, self.session = (int(field) for field in fields[1:4])
        self.began = int(fields[19])

    @property
    def key(self) -> tuple[int, int]:
        """What it is known by."""
        return self.pid, self.began

    def send(self, number: int) -> None:
        """Send it a signal, and nobody else who has its number by now."""
        fd = -1
        try:
            fd = pidfd(self.pid)
            again = process_of(self.pid)
            if again is not None and again.began == self.began:
                send(self.pid, fd, number)
        except OSError:
            pass
        finally:
            if fd >= 0:
                os.close(fd)


def pidfd(pid: int) -> int:
    """Return what holds a process, -1 where there is nothing of the kind; ProcessLookupError: it is gone."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # another system, a kernel before 5.3, or a container that forbids it
        return -1


def send(pid: int, fd: int, number: int) -> None:
    """Send a signal to a process, by what holds it if anything does."""
    if fd >= 0:
        _signal.pidfd_send_signal(fd, number)
    else:
        os.kill(pid, number)


def process_of(pid: int) -> LinuxProcess | None:
    """Return a process; None: it is not there, or /proc does not say."""
    text = read(f"/proc/{pid}/stat")
    try:
        return LinuxProcess(pid, text.rpartition(b")")[2].split())
    except (IndexError, ValueError):
        return None


def now() -> int:
    """Return the time by the clock of /proc."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)


def children(pid: int) -> list[int]:
    """Return the processes that a process started, and that are not yet gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        found += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def others() -> list[LinuxProcess]:
    """Return all processes that live, but this one."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [
        one for pid in pids if pid != os.getpid() and (one := process_of(pid)) is not None and one.state not in b"ZX"
    ]


def read(path: str) -> bytes:
    """Return the content of a file; nothing where it is not there."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        found = b""
        while more := os.read(file, 65_536):
            found += more
        return found
    except OSError:
        return b""
    finally:
        os.close(file)
