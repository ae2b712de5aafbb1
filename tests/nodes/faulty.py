"""Nodes that die, hang and eat memory, for workers of the fault tests (``imports = ["tests.nodes.faulty"]``)."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path

from celerypipe import ConfigError, Message, Proc

logger = logging.getLogger(__name__)

#: What a worker of these nodes has in its configuration.
CONFIG = 'imports = ["tests.nodes.faulty"]\n'


class Dies(Proc):
    """Ends its own process in the way that its payload names; sends anything else on."""

    def update(self, message: Message) -> Message:
        match message.payload:
            case "exit":
                os._exit(3)
            case "segfault":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "memory":
                self.logger.warning("took %d", len(bytearray(1_000_000_000)))
        return message


class Noted(Dies):
    """Notes in ``diary`` when it begins with what; raises, hangs or asks for too much where its payload says so."""

    def __init__(self, diary: str) -> None:
        self.diary = Path(diary)

    def update(self, message: Message) -> Message:
        with self.diary.open("a") as file:
            file.write(f"{time.monotonic()} {message.payload}\n")  # a clock that all processes of a machine share
        match message.payload:
            case "raise":
                raise ValueError(message.payload)
            case "refused":
                return message.with_payload(len(bytearray(1 << 60)))
            case "hang":
                time.sleep(600)
            case "setting":
                raise ConfigError("what it asks for is out of reach")
        return super().update(message)


class Bounded(Proc):
    """As many bytes as its payload says, in a process that may have ``limit`` bytes more than it has."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def warmup(self) -> None:
        with open("/proc/self/statm") as file:
            has = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + self.limit, resource.RLIM_INFINITY))

    def update(self, message: Message) -> Message:
        return message.with_payload(len(bytearray(message.payload)))

    def destroy(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


#: What any node of the process may need.
SHARED = threading.Lock()


class Hangs(Proc):
    """Hangs for ``seconds`` in the way that its payload names; sends anything else on, with its process' number.

    ``once``: only the first time, by whether there is such a file.
    """

    def __init__(self, seconds: float = 600.0, once: str = "") -> None:
        self.seconds = seconds
        self.once = once

    def update(self, message: Message) -> Message:
        if isinstance(message.payload, str) and self.once:
            if Path(self.once).exists():
                return message
            Path(self.once).touch()
        match message.payload:
            case "sleep":
                time.sleep(self.seconds)
            case "socket":
                here, there = socket.socketpair()
                with here, there:
                    here.recv(1)
            case "gil":
                hold(self.seconds)
            case "deaf":
                be_deaf(self.seconds)
            case "mute":
                for handler in logging.getLogger().handlers:
                    handler.acquire()
                be_deaf(self.seconds, quiet=True)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "holds":
                SHARED.acquire()
                time.sleep(self.seconds)
        with SHARED:
            return message.with_meta(pid=os.getpid())


class HangsTogether(Hangs):
    """The same, several messages at once."""

    def update_batch(self, messages: list[Message]) -> list[Message]:
        return [self.update(message) for message in messages]


class HangsInOrder(Hangs):
    """The same, one message after the other: nobody else may run what is behind it."""

    stateful = True

    def snapshot(self) -> None:
        pass

    def restore(self, state: None) -> None:
        pass


def be_deaf(seconds: float, *, quiet: bool = False) -> None:
    """Ignore interrupts for so long: no exception gets out, nor does one that comes while another is ignored."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            _ignore_until(end, quiet=quiet)


def _ignore_until(end: float, *, quiet: bool) -> None:
    while time.monotonic() < end:
        try:
            time.sleep(0.1)
        except BaseException as interrupt:  # noqa: BLE001  # that is the fault
            if not quiet:
                logger.warning("I do not listen to %r", interrupt)


def hold(seconds: float) -> None:
    """Keep the GIL in C: a call through PyDLL does not let go of it, nor does a signal end it."""
    end = time.monotonic() + seconds
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    while (left := end - time.monotonic()) > 0:
        ctypes.PyDLL(None).usleep(int(min(left, 900.0) * 1e6))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
