"""A real ``celery worker`` process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import redis

from celerypipe.mailbox.presence import read_presences
from celerypipe.redis.connection import Client, connect
from tests.servers.checkout import ROOT
from tests.servers.extent import LONG
from tests.servers.patience import PATIENCE, eventually
from tests.servers.zygote import Forked, zygote

#: Every pool, and slots for it.
POOLS = [("solo", 1), ("prefork", 2), ("threads", 2)]
#: Those that the suite takes where they differ little.
FEW_POOLS = POOLS if LONG else POOLS[:2]
#: A key to sign with, and the environment of a worker that has it.
KEY = "a key of the tests that is known"
SIGNED = {"CELERYPIPE_KEYS": KEY}


@cache
def workers_folder() -> Path:
    """Where the workers and commands of this process have their configuration and their logs."""
    return Path(tempfile.mkdtemp(prefix="celerypipe-tests-"))


@dataclass
class RunningWorker:
    """One ``celery worker`` process."""

    process: subprocess.Popen[bytes] | Forked
    log: Path
    url: str
    presence: dict[str, Any] = field(default_factory=dict)
    told: bool = False

    def text(self) -> str:
        """Everything it printed so far."""
        return self.log.read_text(errors="replace")

    def presences(self) -> list[dict[str, Any]]:
        """Its own presence, or nothing."""
        with connect(self.url) as client:
            return self._presences(client)

    def _presences(self, client: Client) -> list[dict[str, Any]]:
        listed = client.zrange(client.names.workers, 0, -1)
        if not any(f".{self.process.pid}.".encode() in name for name in listed):
            return []  # to read those of all others is long, and this is asked again and again
        return [record for record in read_presences(client) if record["pid"] == self.process.pid]

    def wait_for_presence(self) -> RunningWorker:
        with connect(self.url) as client:  # one for all the times it is asked

            def present() -> bool:
                assert self.process.poll() is None, f"the worker ended with {self.process.returncode}:\n{self.text()}"
                with suppress(redis.RedisError, OSError):
                    self.presence = next(iter(self._presences(client)), {})
                return bool(self.presence)

            try:
                eventually(present, "the worker's presence")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.text()}") from None
        return self

    def wait_for_text(self, text: str) -> str:
        """Wait until it printed the text; return everything."""
        try:
            eventually(lambda: text in self.text(), f"{text!r} in the worker's log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from None
        return self.text()

    def wait_for_end(self) -> int:
        """Wait until it ends by itself; return its exit status."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not end:\n{self.text()}") from None

    def kill(self) -> None:
        """``kill -9`` the worker and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def tell_to_end(self) -> None:
        """Once only: Celery's handler deadlocks where a second signal interrupts it (it holds a lock)."""
        if not self.told:
            self.told = True
            self.process.terminate()

    def stop(self) -> None:
        self.tell_to_end()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)  # Celery prints what each thread is doing
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            raise AssertionError(f"the worker did not end:\n{self.text()}") from None
        finally:
            self.kill()


#: Arguments as :func:`launch_worker`, the rest of which the fixture knows.
StartWorker = Callable[..., RunningWorker]


def launch_worker(
    queue: str,
    *,
    url: str,
    pool: str | None = None,
    concurrency: int | None = None,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    config: str | None = None,
    arguments: Sequence[str] = (),
    python: Path = Path(sys.executable),
    typed: Sequence[str] = ("celery", "-A", "celerypipe"),
    wait: bool = True,
    fresh: bool = False,
    **how: Any,
) -> RunningWorker:
    """Start ``celery -A celerypipe worker -Q <queue>``.

    ``config``: the text of its ``<queue>.toml``; without, the file in ``cwd`` counts. ``python``: of which environment.
    ``typed``: the module, and what is before ``worker``. ``wait``: for its presence. ``how``: as ``Popen`` has it.
    ``fresh``: in an interpreter of its own; without, it is forked from a process that has imported all it needs.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{queue}-", dir=workers_folder()))
    environment = {**os.environ, "CELERYPIPE_REDIS_URL": url, "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if config is not None:
        (folder / f"{queue}.toml").write_text(config)
        environment["CELERYPIPE_WORKER_CONFIGS"] = str(folder)
    environment |= env or {}
    words = ["-m", *typed, "worker", "-Q", queue, *arguments]
    words += ["-P", pool] if pool else []
    words += ["-c", str(concurrency)] if concurrency else []
    log = folder / "log"
    process: subprocess.Popen[bytes] | Forked
    with log.open("wb") as file:
        if fresh or how or str(python) != sys.executable:
            streams: dict[str, Any] = {"stdout": file, "stderr": file, "start_new_session": True}
            process = subprocess.Popen([str(python), *words], cwd=cwd, env=environment, **{**streams, **how})
        else:
            process = zygote.fork(words, cwd=cwd, environment=environment, streams=(file, file))
    worker = RunningWorker(process, log, url)
    if wait:
        try:
            worker.wait_for_presence()
        except AssertionError:
            worker.kill()
            raise
    return worker
