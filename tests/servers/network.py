"""Several machines in one: network namespaces that meet at a switch, each with a name and a /dev/shm of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.servers.checkout import ROOT
from tests.servers.redis import redis_binary

#: Run by a shell in a namespace of names and mounts: what machines do not share.
APART = 'hostname "$0" && mount -t tmpfs shm /dev/shm && exec "$@"'


def _run(*words: object) -> None:
    subprocess.run([*map(str, words)], check=True, capture_output=True, text=True)


@dataclass
class NetworkMachine:
    """A machine of the network, by its name there."""

    name: str
    namespace: str
    address: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: object, **how: Any) -> subprocess.Popen[str]:
        """Start a program there; ``how``: as ``Popen`` has it."""
        inside = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--mount", "sh", "-c", APART, self.name]
        process = subprocess.Popen([*inside, *map(str, words)], start_new_session=True, text=True, **how)
        self.processes.append(process)
        return process

    def python(self, *words: object, environment: Mapping[str, str], **how: Any) -> subprocess.Popen[str]:
        """Start this Python there, with variables of its own."""
        around = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        return self.start(sys.executable, *words, env=around, **how)

    def cut(self) -> None:
        """Pull its plug."""
        _run("ip", "-n", self.namespace, "link", "set", "eth0", "down")

    def mend(self) -> None:
        """Put it in again."""
        _run("ip", "-n", self.namespace, "link", "set", "eth0", "up")

    def limit(self, rate: str) -> None:
        """Let no more leave it than that, such as 100mbit."""
        _run(
            "tc",
            "-n",
            self.namespace,
            "qdisc",
            "add",
            "dev",
            "eth0",
            "root",
            "tbf",
            "rate",
            rate,
            "burst",
            "32k",
            "latency",
            "400ms",
        )

    def end(self) -> None:
        """End what was started there."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@dataclass
class Network:
    """A switch, and the machines at it."""

    ident: str
    machines: dict[str, NetworkMachine] = field(default_factory=dict)

    @property
    def switch(self) -> str:
        return f"cp{self.ident}s"

    def machine(self, name: str) -> NetworkMachine:
        """Add one."""
        number = len(self.machines) + 1
        made = NetworkMachine(name, f"cp{self.ident}{number}", f"10.77.0.{number}")
        port = f"p{number}"
        _run("ip", "netns", "add", made.namespace)
        self.machines[name] = made
        _run(
            "ip",
            "-n",
            self.switch,
            "link",
            "add",
            port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            made.namespace,
        )
        _run("ip", "-n", self.switch, "link", "set", port, "master", "bridge", "up")
        _run("ip", "-n", made.namespace, "address", "add", f"{made.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run("ip", "-n", made.namespace, "link", "set", device, "up")
        return made

    def redis(self, on: NetworkMachine, folder: Path) -> str:
        """Start a Redis on one of them; return its address there."""
        on.start(
            redis_binary(),
            *("--bind", on.address, "--port", 6379, "--protected-mode", "no", "--save", "", "--dir", folder),
            stdout=subprocess.DEVNULL,
        )
        return f"redis://{on.address}:6379/0"

    def remove(self) -> None:
        """End all of it."""
        with ExitStack() as last:
            last.callback(self._let_go)
            for each in self.machines.values():
                last.callback(each.end)

    def _let_go(self) -> None:
        for name in (*(each.namespace for each in self.machines.values()), self.switch):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextmanager
def network() -> Iterator[Network]:
    """A network for a test; a skip, with the reason, where this system or this user has none."""
    if None in map(shutil.which, ("ip", "tc", "unshare")):
        pytest.skip("network namespaces need the programs ip and tc (iproute2) and unshare (util-linux)")
    made = Network(secrets.token_hex(3))
    try:
        _run("ip", "netns", "add", made.switch)
        _run("ip", "-n", made.switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", made.switch, "link", "set", "bridge", "up")
        _run("ip", "netns", "exec", made.switch, "unshare", "--uts", "--mount", "true")
    except (subprocess.CalledProcessError, OSError) as error:
        made.remove()
        said = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"this user may make no network namespaces here: {said.strip()}")
    try:
        yield made
    finally:
        made.remove()
