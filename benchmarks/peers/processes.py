"""Processes that a measurement starts: a Redis, a peer's script; all that came of them is found again and ended.

Each carries a mark in its environment and hands it on. So whatever a peer leaves behind, detached or not, is known by
the mark in /proc and is ended by its id, and nothing else is touched. Without /proc only the script itself is ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.venvs import ROOT
from celerypipe.embedded.server import find_redis_server, private_folder, redis_url, start_redis_server

MARK = "BENCH_MARK"  # without our prefix, which workers started by the suite do not inherit
GRACE = 20.0
SEMAPHORES = Path("/dev/shm")  # noqa: S108  # where Linux keeps them
#: Ray's, by the process that made them.
SEMAPHORE = re.compile(r"sem\.(?:obj|hdr)(\d+)-\d+")


class NoAnswerError(Exception):
    """The peer's script ended or did not answer in time."""


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A Redis of our own on a unix socket; its address."""
    folder = private_folder()
    server = start_redis_server(find_redis_server(), folder)
    try:
        deadline = time.monotonic() + 10
        while not (folder / "redis.sock").exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise NoAnswerError((folder / "redis.log").read_text(encoding="utf-8")[-300:])
            time.sleep(0.01)
        yield redis_url(folder)
    finally:
        server.kill()
        server.wait()
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


class Script:
    """A peer's script in its own interpreter, asked and answering in JSON lines. Its log is a file."""

    def __init__(self, python: Path, name: str, url: str, log: Path) -> None:
        self.mark = f"{os.getpid()}-{name}-{time.monotonic_ns()}"
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment |= {MARK: self.mark, "BENCH_REDIS": url, "PATH": f"{python.parent}:{os.environ['PATH']}"}
        with log.open("wb") as errors:
            self.process = subprocess.Popen(  # noqa: S603  # our own module, run by an interpreter that we installed
                [str(python), "-m", "benchmarks.peers.script", name],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is the parent's; it ends the script itself
            )
        #: Every process that was seen with the mark: some leave files under their ids.
        self.seen: set[int] = {self.process.pid}
        self.answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.answers.put(line)
        self.answers.put("")

    def answer(self, timeout: float) -> dict[str, Any]:
        """The next line it says."""
        try:
            line = self.answers.get(timeout=timeout)
        except queue.Empty:
            raise NoAnswerError(f"no answer after {timeout:.0f} s") from None
        if not line:
            raise NoAnswerError("its script ended")
        said: dict[str, Any] = json.loads(line)
        return said

    def ask(self, question: dict[str, int], timeout: float) -> dict[str, Any]:
        """Say one line, wait for the answer."""
        self.seen.update(marked(self.mark))
        try:
            print(json.dumps(question), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise NoAnswerError("its script ended") from None
        return self.answer(timeout)

    def close(self) -> None:
        """Hang up; end it if it stays; then end what it left, and remove what nobody removed."""
        self.seen.update(marked(self.mark))
        try:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()  # type: ignore[union-attr]
            for insist in (lambda: None, self.process.terminate, self.process.kill):
                insist()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(GRACE)
                    break
        finally:  # also when Ctrl-C comes again
            end_marked(self.mark)
            remove_semaphores(self.seen)


def remove_semaphores(processes: Iterable[int]) -> None:
    """Remove the semaphores that these processes made and left, known by the id in the name.

    Ray's channels are guarded by two each, and the processes that made them do not live to remove them.
    """
    owners = set(map(str, processes))
    for file in SEMAPHORES.glob("sem.*"):
        name = SEMAPHORE.fullmatch(file.name)
        if name is not None and name[1] in owners:
            with contextlib.suppress(OSError):
                file.unlink()


def marked(mark: str) -> list[int]:
    """The ids of the processes that carry the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def end_marked(mark: str) -> None:
    """End each of them by its id, kindly first."""
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        for process in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
        deadline = time.monotonic() + patience
        while marked(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
