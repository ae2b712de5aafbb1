"""A slow cable between two machines that are none: two network namespaces, a veth pair, and ``tc`` at both its ends.

Linux and root only. What it makes is named after this process and removed at the end; what a killed one left is removed
by the next.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Addresses for documentation (RFC 5737); nobody outside the namespaces sees them.
HERE, THERE = "192.0.2.1", "192.0.2.2"
_NAMES = Path("/run/netns")
_PREFIX = "celerypipe-"
_CLONE_NEWNET = 0x4000_0000
_END = "cable"


class Impossible(Exception):
    """This system cannot do it; the text says why."""


class Link:
    """Two namespaces, ``here`` and ``there``, and the link between them."""

    def __init__(self, here: str, there: str) -> None:
        self.here = here
        self.there = there

    def throttle(self, megabits: int | None) -> None:
        """Let so many megabits a second pass each way; None: as many as the machine can."""
        for name in (self.here, self.there):
            with suppress(Impossible):  # the first time there is nothing to delete
                _ask("tc", "-n", name, "qdisc", "del", "dev", _END, "root")
            if megabits is not None:
                # A burst of a millisecond, and at least two of the largest pieces that the kernel hands over.
                burst = max(128 * 1024, megabits * 125)
                limit = ("burst", str(burst), "latency", "50ms")
                _ask("tc", "-n", name, "qdisc", "add", "dev", _END, "root", "tbf", "rate", f"{megabits}mbit", *limit)

    def over_there(self, command: list[str]) -> list[str]:
        """The same command at the other end."""
        return ["ip", "netns", "exec", self.there, *command]


@contextmanager
def link() -> Iterator[Link]:
    """Make the link and move this process, and what it starts from now on, to its ``here`` end."""
    _need_root_and_tools()
    _sweep()
    made = Link(f"{_PREFIX}here-{os.getpid()}", f"{_PREFIX}there-{os.getpid()}")
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        for name in (made.here, made.there):
            _ask("ip", "netns", "add", name)
            _ask("ip", "-n", name, "link", "set", "lo", "up")
        _ask(
            "ip",
            "-n",
            made.here,
            "link",
            "add",
            "name",
            _END,
            "type",
            "veth",
            "peer",
            "name",
            _END,
            "netns",
            made.there,
        )
        for name, address in ((made.here, HERE), (made.there, THERE)):
            _ask("ip", "-n", name, "address", "add", f"{address}/30", "dev", _END)
            _ask("ip", "-n", name, "link", "set", _END, "up")
        _enter(os.open(_NAMES / made.here, os.O_RDONLY))
        yield made
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it behind
        _enter(home)
        for name in (made.here, made.there):  # the veth pair goes with them
            with suppress(Impossible):
                _ask("ip", "netns", "del", name)


def _need_root_and_tools() -> None:
    if os.geteuid() != 0:
        raise Impossible("network namespaces need root: sudo $(command -v python) -m benchmarks.throttled")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise Impossible(f"there is no {tool!r} here: apt install iproute2")


def _sweep() -> None:
    for path in _NAMES.glob(f"{_PREFIX}*here-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            for name in (path.name, path.name.replace("here", "there")):
                with suppress(Impossible):
                    _ask("ip", "netns", "del", name)


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
    failed = libc.setns(namespace, _CLONE_NEWNET)
    os.close(namespace)
    if failed:
        raise Impossible(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


def _ask(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # commands of our own
    if done.returncode:
        raise Impossible(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
