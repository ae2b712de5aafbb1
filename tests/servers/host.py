"""A real ``celerypipe host``, and the folder of a project that it runs in."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from celerypipe.host.manager import Manager
from tests.servers.checkout import ROOT
from tests.servers.patience import PATIENCE, eventually
from tests.servers.processes import children_of, descendants

#: What it may start: two queues that know the same nodes.
LIST = """
[queues.hgpu]
most = 2
[queues.hcpu]
most = 4
[restart]
attempts = 3
delay = 0.05
jitter = 0
"""
#: How its workers run.
CONFIG = 'imports = ["tests.nodes.remote", "tests.nodes.faulty"]\nworker_pool = "solo"\n'


@dataclass
class RunningHost:
    """One host; the process is its guard."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """What it said so far."""
        return self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process below the guard."""
        return next(iter(children_of(self.process.pid)))

    def wait_for_text(self, text: str) -> str:
        """Wait until it said this."""
        try:
            return eventually(lambda: text in self.text() and self.text(), f"{text!r} in the host's log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text()}") from None

    def wait_until_up(self) -> RunningHost:
        """Wait until others see it."""
        manager = Manager(self.url)

        def up() -> bool:
            assert self.process.poll() is None, f"the host ended with {self.process.returncode}:\n{self.text()}"
            return manager.host_status(self.name).state in ("up", "refused") and "asked on queue" in self.text()

        try:
            eventually(up, "the host")
        finally:
            manager.close()
        return self

    def wait_for_end(self) -> int:
        """Wait until it ends by itself; return its exit status."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the host did not end:\n{self.text()}") from None

    def stop(self) -> None:
        """End it in good order, or in any."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                for pid in (self.process.pid, *descendants(self.process.pid)):
                    os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"the host did not end:\n{self.text()}") from None


def _as_in_the_background() -> None:
    """As a shell starts what stands before its ``&``; the workers of such a host end by SIGQUIT all the same."""
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)


def launch_host(
    folder: Path,
    url: str,
    *,
    name: str = "",
    allowed: str = LIST,
    environment: Mapping[str, str] = {},
    wait: bool = True,
) -> RunningHost:
    """Start one in a folder, which becomes that of a project."""
    name = name or f"box-{secrets.token_hex(3)}"
    (folder / "worker_configs").mkdir(parents=True, exist_ok=True)
    for queue in ("hgpu", "hcpu"):
        file = folder / "worker_configs" / f"{queue}.toml"
        if not file.exists():
            file.write_text(CONFIG)
    (folder / "host.toml").write_text(allowed)
    around = {**os.environ, "PYTHONPATH": str(ROOT), "CELERYPIPE_REDIS_URL": url, **environment}
    log = folder / f"host-{name}.log"
    words = ["-m", "celerypipe", "host", "--name", name, "--state", str(folder / f"state-{name}")]
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=around,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=_as_in_the_background,
        )
    host = RunningHost(name, process, log, url, dict(environment))
    try:
        return host.wait_until_up() if wait else host
    except BaseException:
        host.stop()
        raise


@contextmanager
def running_host(folder: Path, url: str, **how: object) -> Iterator[RunningHost]:
    """Start one, and end it."""
    host = launch_host(folder, url, **how)  # type: ignore[arg-type]  # as that function has them
    try:
        yield host
    finally:
        host.stop()
