"""Processes that begin with everything imported: forked from one that waits for orders, the zygote.

A ``celery worker`` needs 0.7 s of a core before it says anything, nearly all of it to import, and the suite starts
hundreds. What is forked has a session, folder, environment, streams and ``sys.argv`` of its own and runs the same
``__main__`` as ``python -m``; the Celery application is made in it. What differs: its parent is the zygote; ``ps`` and
``/proc`` show the zygote's command line and environment; of the variables of the interpreter itself only
``PYTHONPATH`` and ``PYTHONIOENCODING`` are heard; some modules are there before they are asked for; and at its end
threads are joined and what is registered with ``atexit`` is called, but modules are not taken apart.

Who tests that, or the boot itself, starts an interpreter: ``launch_worker(..., fresh=True)``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.servers.checkout import ROOT

SCRIPT = Path(__file__).with_name("preloaded.py")


class Zygote:
    """Started when it is first asked, and ends when it is closed, or with this process. What it forked ends with it.

    Those of the processes of one run are one: whoever has its address asks it, too.
    """

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._orders: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """Where other processes find it."""
        with self._asking:
            if self._orders is None:
                self._start()
        return self._address

    def join(self, address: str) -> None:
        """Be the one of another process, which closes it."""
        self._orders = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.connect(address)

    def fork(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        streams: Sequence[IO[Any] | int],
        ignored: Sequence[int] = (),
    ) -> Forked:
        """Start Python with these words.

        ``streams``: its standard output, standard error and, if there is a third, standard input; a terminal there is
        its own. ``ignored``: signals that it was told to ignore by who started it.
        """
        order = {"words": words, "cwd": str(cwd.absolute()), "environment": dict(environment), "ignored": [*ignored]}
        return Forked(
            self, self._ask(order, [each if isinstance(each, int) else each.fileno() for each in streams]), words
        )

    def reap(self, pid: int) -> int | None:
        """Return the exit status of one that ended, once; None: it lives."""
        status: int | None = self._ask({"reap": pid})
        return status

    def close(self) -> None:
        """Let it end, if it is of this process."""
        if self._orders is not None:
            self._orders.close()
        if self._process is not None:
            self._process.wait()
            shutil.rmtree(Path(self._address).parent)

    def _start(self) -> None:
        self._address = str(Path(tempfile.mkdtemp(prefix="celerypipe-zygote-")) / "socket")
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(self._address)
            door.listen()
            descriptors = theirs.fileno(), door.fileno()
            self._process = subprocess.Popen(
                [sys.executable, str(SCRIPT), *map(str, descriptors)],
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
                pass_fds=descriptors,
                start_new_session=True,
            )

    def _ask(self, order: dict[str, Any], descriptors: Sequence[int] = ()) -> Any:
        with self._asking:
            if self._orders is None:
                self._start()
            assert self._orders is not None
            socket.send_fds(self._orders, [json.dumps(order).encode()], list(descriptors))
            answer = self._orders.recv(100)
        return json.loads(answer)


class Forked:
    """A process that a zygote forked, which leads a session, with what tests need of :class:`subprocess.Popen`."""

    def __init__(self, zygote: Zygote, pid: int, words: Sequence[str]) -> None:
        self._zygote = zygote
        self.pid = pid
        self.args = words
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._zygote.reap(self.pid)
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        deadline, pause = time.monotonic() + timeout, 0.001
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


#: That of this process, or the one it joined.
zygote = Zygote()
