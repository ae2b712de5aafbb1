"""Real servers for the tests: a Redis of their own on a unix socket, and real ``celery worker`` processes.

Without a redis-server the tests that need one are skipped at a desk and fail under ``CI``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from celerypipe.embedded.server import find_redis_server, private_folder, start_redis_server
from celerypipe.embedded.server import redis_url as url_in
from celerypipe.errors import ConfigError
from celerypipe.mailbox.presence import read_presences
from celerypipe.redis.connection import connect

ROOT = Path(__file__).parents[1]
#: Where the workers of this session have their configuration and their logs.
WORKERS = Path(tempfile.gettempdir()) / f"celerypipe-tests-{os.getpid()}"
#: Long enough for a loaded machine; a test that waits this long has failed.
PATIENCE = 40.0

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str = "it", timeout: float = PATIENCE) -> T:
    """Wait until the condition returns something true, and return that."""
    deadline, pause = time.monotonic() + timeout, 0.005
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:.0f} s"
        time.sleep(pause)
        pause = min(1.2 * pause, 0.1)  # several tests at a time wait for something: looking costs the others time
    return value


@dataclass
class RedisServer:
    """A private redis-server that a test may stop, kill, freeze and start again."""

    folder: Path = field(default_factory=private_folder)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return url_in(self.folder)

    def start(self) -> RedisServer:
        (self.folder / "redis.sock").unlink(missing_ok=True)
        self.process = start_redis_server(redis_binary(), self.folder)
        eventually(self._answers, "an answer of redis-server")
        return self

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError, OSError), connect(self.url) as client:
            return bool(client.ping())
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder)


@dataclass
class RunningWorker:
    """One ``celery worker`` process."""

    process: subprocess.Popen[bytes]
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
            return [record for record in read_presences(client) if record["pid"] == self.process.pid]

    def wait_for_presence(self) -> RunningWorker:
        def present() -> bool:
            assert self.process.poll() is None, f"the worker ended with {self.process.returncode}:\n{self.text()}"
            with suppress(redis.RedisError, OSError):
                self.presence = next(iter(self.presences()), {})
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


@dataclass
class Workplace:
    """A folder that a worker runs in: modules of its own, ``worker_configs/`` of its own."""

    folder: Path

    def module(self, name: str, text: str) -> Path:
        """Write a module that workers started here can import."""
        path = self.folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if "." in name:  # a namespace package would lose against a package of that name further down the path
            (path.parent / "__init__.py").touch()
        return path

    def config(self, queue: str, text: str) -> Path:
        """Write ``worker_configs/<queue>.toml``."""
        path = self.folder / "worker_configs" / f"{queue}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


StartWorker = Callable[..., RunningWorker]
Write = Callable[[str, str], Path]


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
    wait: bool = True,
) -> RunningWorker:
    """Start ``celery -A celerypipe worker -Q <queue>``.

    ``config``: the text of its ``<queue>.toml``; without, the file in ``cwd`` counts. ``python``: of which environment.
    ``wait``: for its presence.
    """
    WORKERS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{queue}-", dir=WORKERS))
    environment = {**os.environ, "CELERYPIPE_REDIS_URL": url, "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if config is not None:
        (folder / f"{queue}.toml").write_text(config)
        environment["CELERYPIPE_WORKER_CONFIGS"] = str(folder)
    command = [str(python), "-m", "celery", "-A", "celerypipe", "worker", "-Q", queue, *arguments]
    command += ["-P", pool] if pool else []
    command += ["-c", str(concurrency)] if concurrency else []
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=cwd, env={**environment, **(env or {})}, stdout=file, stderr=file, start_new_session=True
        )
    worker = RunningWorker(process, log, url)
    if wait:
        try:
            worker.wait_for_presence()
        except AssertionError:
            worker.kill()
            raise
    return worker


def redis_binary() -> Path:
    """The redis-server to test with; skips, or fails under CI, where there is none."""
    try:
        return find_redis_server()
    except ConfigError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
