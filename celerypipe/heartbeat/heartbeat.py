"""A worker's or a runner's side of its heartbeat: it starts the process that gives it, and another in its place."""

from __future__ import annotations

import contextlib
import logging
import marshal
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from celerypipe.errors import ConfigError
from celerypipe.heartbeat.deadlines import Deadlines
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Command
from celerypipe.redis.endpoint import endpoint

logger = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("monitor.py")
#: What it gets of the environment: where Python finds its libraries, and TLS its certificates; and a clock that is
#: faked, since it has to be the same for both.
ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_PRELOAD", "FAKETIME")
#: Seconds until the next try to start one, where that fails or where it ends at once.
PAUSE = 0.5
#: Seconds it gets to end.
PATIENCE = 2.0


class Words(NamedTuple):
    """What a heartbeat says in Redis; see :mod:`celerypipe.heartbeat.monitor`. None stands for the living processes.

    ``last`` once its process is gone, ``left`` before that if it said that it ends.
    """

    beat: Sequence[Command]
    full: Sequence[Command]
    last: Sequence[Command]
    left: Sequence[Command] = ()


class Heartbeat:
    """That of this process, and of others that it started and names. Forked children must leave it alone."""

    def __init__(
        self,
        address: Address,
        words: Words,
        *,
        descendants: Literal["", "session", "all"] = "",
        deadlines: Deadlines | None = None,
        lines: Mapping[str, Any] | None = None,
    ) -> None:
        """``descendants``: what comes of this process, in its session or at all, is ended with it.

        ``deadlines``: those of its processes, each of which is ended that misses its own; ``lines``: what they log, see
        :mod:`celerypipe.heartbeat.shipper`.
        """
        said = {name: _plain(commands) for name, commands in words._asdict().items()}
        self.deadlines = deadlines
        about = {"boss": os.getpid(), "endpoint": endpoint(address), "descendants": descendants}
        held = deadlines.fd if deadlines is not None else -1
        self._plan = marshal.dumps({**about, "deadlines": held, "lines": dict(lines or {}), **said})
        self._shared = [fd for fd in (held, int((lines or {}).get("fd", -1))) if fd >= 0]
        self._others: set[int] = set()
        self._standing = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="celerypipe-heartbeat", daemon=True)
        self._changed = threading.Lock()
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin, unless it has begun; :class:`ConfigError` says why that cannot be."""
        if self._thread.ident is not None:  # the carrier of functions opens once for each of them
            return
        try:
            self._start()
        except OSError as error:
            raise ConfigError(
                f"cannot start the heartbeat process: {error}; {sys.executable} and {SCRIPT} must be there, and "
                "allowed to run"
            ) from error
        self._thread.start()

    def watch(self, pid: int) -> None:
        """This process started another one, which lives from now on, and ends with it."""
        with self._changed:
            self._others.add(pid)
            self._tell(b"+%d\n" % pid)

    def say(self, commands: Sequence[Command], revision: str = "") -> None:
        """Have these commands stand in Redis, in place of those told before; None in them stands for the time here.

        ``revision`` tells them from others; each beat says it.
        """
        body = marshal.dumps(_plain(commands))
        with self._changed:
            self._standing = b"=%d %b\n%b" % (len(body), revision.encode(), body)
            self._tell(self._standing)

    def forget(self, pid: int) -> None:
        """It ended."""
        with self._changed:
            self._others.discard(pid)

    def end(self, *, last: bool) -> None:
        """Say nothing any more; ``last``: but the last words, as if this process had ended."""
        with self._changed:
            self._ended.set()
            self._tell(b"leave\n" if last else b"end\n")
            process = self._process
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            if process.stdin is not None:
                process.stdin.close()
            self._thread.join(PATIENCE)

    @property
    def pid(self) -> int:
        """The process that gives it now; 0: there is none."""
        return self._process.pid if self._process is not None else 0

    def _tell(self, data: bytes) -> None:
        # A pipe that nobody reads is one whose reader has ended: the next one is told everything.
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                while data:
                    data = data[os.write(self._process.stdin.fileno(), data) :]

    def _start(self) -> None:
        with self._changed:
            if self._ended.is_set():
                return
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
            self._process = None
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter and a file of this package
                [sys.executable, "-I", "-S", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                start_new_session=True,  # what ends this process, or its group, must not end the one that tells of it
                bufsize=0,
                pass_fds=self._shared,
            )
            self._tell(len(self._plan).to_bytes(4, "big") + self._plan)
            for pid in sorted(self._others):
                self._tell(b"+%d\n" % pid)
            self._tell(self._standing)

    def _keep(self) -> None:
        while not self._ended.is_set():
            process = self._process
            if process is not None:
                if _stops(process.pid):
                    process.kill()  # nobody can tell when it goes on, and meanwhile others take this one for dead
                status = process.wait()
                if self._ended.is_set():
                    return
                logger.warning("the heartbeat process ended (status %d); starting another", status)
            try:
                self._start()
            except OSError as error:  # no memory or no room for a process; the heartbeat lasts for seconds
                logger.error("cannot start it: %s; trying again", error)  # noqa: TRY400  # its place says nothing
            self._ended.wait(PAUSE)


def _stops(child: int) -> bool:
    """Wait until a child ends, which is left for others to see, or is stopped; return whether it was stopped."""
    if not hasattr(os, "waitid"):  # on macOS before Python 3.13
        return False
    try:
        said = os.waitid(os.P_PID, child, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
    except ChildProcessError:  # it ended, and somebody saw that
        return False
    return said is not None and said.si_code == os.CLD_STOPPED


def _plain(commands: Sequence[Command]) -> list[list[bytes | None]]:
    return [[None if part is None else str(part).encode() for part in command] for command in commands]
