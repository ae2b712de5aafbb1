"""Nothing outlives a ``kill -9``: neither what runs nodes nor what these started, however they started it.

``make orphans`` takes each census fifty times.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from celerypipe import Manager, Message, Runner
from celerypipe.mailbox.liveness import OVER
from celerypipe.redis.connection import Client, connect
from tests.runs.pipelines import warped
from tests.servers import ROOT, eventually
from tests.servers.census import VARIABLE, Census
from tests.servers.extent import ROUNDS, at_length
from tests.servers.host import RunningHost, launch_host, running_host
from tests.servers.processes import alive, command_line, descendants, monitors_of, parent

#: Seconds that it takes at most: two where nothing else runs on the machine, as with `make orphans`.
LIMIT = 2.0 if ROUNDS > 1 else 20.0

#: Has a node of a queue start something, for each name of a queue that it reads.
PROGRAM = """
import json, sys
from celerypipe import Embedded, Message, Runner
from tests.runs.pipelines import warped

with Embedded({"many": 2, "alone": None}) as url:
    print(json.dumps(url), flush=True)
    for line in sys.stdin:
        pipeline = warped("tests.nodes.forking.Deserts", line.strip())
        for message in Runner(url).stream(pipeline, [Message(0)]):
            print(json.dumps(message.payload), flush=True)
"""


@dataclass
class Program:
    """A user's program with an ``Embedded`` of its own."""

    process: subprocess.Popen[str]
    census: Census
    url: str = ""
    #: Who ran the node of a queue now, and what that started; who ever ran one.
    of: dict[str, list[int]] = field(default_factory=dict)
    ran: list[int] = field(default_factory=list)

    def told(self) -> Any:
        """What it prints next."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def start_some(self, queue: str) -> None:
        """Have a node start something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{queue}\n")
        self.process.stdin.flush()
        self.of[queue] = self.told()
        self.ran.append(self.of[queue][0])

    def find(self, who: str) -> int:
        """The process that is called so here."""
        if who == "user":
            return self.process.pid
        if who == "pool child":
            return self.of["many"][0]
        if who == "prefork worker":
            return parent(self.of["many"][0])
        if who == "solo worker":
            return self.of["alone"][0]
        both = [pid for pid in descendants(self.process.pid) if "embedded.supervisor" in command_line(pid)]
        return next(pid for pid in both if (parent(pid) in both) == (who == "supervisor"))

    def kill(self, who: str) -> None:
        """Kill it, as nobody can hear that."""
        self.census.look(self.process.pid)
        for pid in [self.find(each) for each in who.split(" and ")]:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def census() -> Iterator[Census]:
    """What a test that fails leaves is ended."""
    found = Census()
    yield found
    for pid in found.left():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def program(workplace: Any, census: Census) -> Iterator[Program]:
    for queue, pool in {"many": "prefork", "alone": "solo"}.items():
        workplace.config(queue, f'imports = ["tests.nodes.forking"]\nworker_pool = "{pool}"\n')
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=workplace.folder,
        env={**census.environment, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    with process:
        found = Program(process, census)
        try:
            found.url = found.told()
            yield found
        finally:
            census.look(process.pid)
            for pid in census.left():
                os.kill(pid, signal.SIGKILL)


def nobody_of(pids: list[int]) -> None:
    eventually(lambda: not any(map(alive, pids)), "the end of what a node started")


def nobody_but(stay: list[int], census: Census) -> None:
    left: dict[int, str] = {}

    def only_those() -> bool:
        left.clear()
        left.update((pid, command) for pid, command in census.left().items() if pid not in stay)
        return not left

    try:
        eventually(only_those)
    except AssertionError:
        raise AssertionError(f"these are left: {left}") from None


def wait_for_looks(url: str) -> None:
    """Wait until all monitors have looked at what there is: they do so after each beat.

    Where both die that nothing gets past, those are left, and end what they saw.
    """
    with connect(url) as client:
        for key in client.scan_iter("*:heartbeat:*"):
            for _ in range(2):
                wait_for_beat(client, key)


def wait_for_beat(client: Client, key: bytes | str) -> None:
    left = client.pttl(key)

    def beaten() -> bool:
        nonlocal left
        before, left = left, client.pttl(key)
        return left > before or client.get(key) in (None, OVER, OVER.encode())

    eventually(beaten, "a beat")


def nothing_shared(ran: list[int]) -> None:
    """Who gives back shared memory had its time for that."""
    assert not [pid for pid in ran if Path(f"/dev/shm/deserts-{pid}").exists()]  # noqa: S108


@pytest.mark.parametrize("attempt", range(ROUNDS))
@pytest.mark.parametrize(
    ("first", "queue", "last"),
    [
        ("pool child", "many", "user"),
        ("prefork worker", "many", "supervisor"),
        ("solo worker", "alone", "guard"),
        pytest.param("solo worker", "alone", "guard and supervisor", marks=at_length),
    ],
)
def test_nobody_is_left_of_embedded(program: Program, first: str, queue: str, last: str, attempt: int) -> None:
    """What ran a node takes along what that started, and the rest goes on; who owns all of it takes all along."""
    for each in ("many", "alone"):
        program.start_some(each)
    gone, others = program.of[queue], program.of["alone" if queue == "many" else "many"]
    program.kill(first)
    nobody_of(gone)
    assert all(map(alive, others[:3]))  # its daemon is nobody's, and was ended before
    program.start_some(queue)
    assert all(map(alive, program.of[queue][:3]))
    if " and " in last:
        wait_for_looks(program.url)

    program.kill(last)
    began = time.monotonic()
    stay = [] if last == "user" else [program.process.pid, *monitors_of(program.process.pid)]
    nobody_but(stay, program.census)
    assert time.monotonic() - began < LIMIT
    nothing_shared(program.ran)
    if stay:
        program.census.look(program.process.pid)
        program.process.communicate()
        assert program.process.returncode == 0
        nobody_but([], program.census)


#: Has a host start workers, which end with this process.
MANAGER = """
import sys
from celerypipe import Manager

host = Manager(sys.argv[1]).hosts[sys.argv[2]]
host.start("hcpu", pool="prefork", slots=2)
host.start("hgpu")
print("up", flush=True)
sys.stdin.read()
"""


@dataclass
class Hosted:
    """A host, and who asked it for workers."""

    host: RunningHost
    manager: subprocess.Popen[str]
    census: Census
    #: Who ran the node of a queue now, and what that started; who ever ran one.
    of: dict[str, list[int]] = field(default_factory=dict)
    ran: list[int] = field(default_factory=list)

    def start_some(self, queue: str) -> None:
        """Have a node start something."""
        pipeline = warped("tests.nodes.forking.Deserts", queue)
        (message,) = Runner(self.host.url).stream(pipeline, [Message(0)])
        self.of[queue] = message.payload
        self.ran.append(self.of[queue][0])

    def kill(self, who: str) -> None:
        """Kill it, as nobody can hear that."""
        pids = {
            "pool child": self.of["hcpu"][0],
            "prefork worker": parent(self.of["hcpu"][0]),
            "solo worker": self.of["hgpu"][0],
            "manager": self.manager.pid,
            "host": self.host.pid,
            "guard": self.host.process.pid,
        }
        self.census.look(self.host.process.pid)
        for pid in [pids[each] for each in who.split(" and ")]:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def hosted(workplace: Any, redis_url: str, census: Census) -> Iterator[Hosted]:
    for queue in ("hcpu", "hgpu"):
        workplace.config(queue, 'imports = ["tests.nodes.forking"]\nworker_pool = "solo"\n')
    host = launch_host(workplace.folder, redis_url, environment={VARIABLE: census.token})
    words = [sys.executable, "-c", MANAGER, redis_url, host.name]
    try:
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as manager:
            assert manager.stdout is not None
            assert manager.stdout.readline() == "up\n"
            yield Hosted(host, manager, census)
            manager.kill()
    finally:
        census.look(host.process.pid)
        for pid in census.left():
            os.kill(pid, signal.SIGKILL)
        host.process.wait()


@pytest.mark.parametrize("attempt", range(ROUNDS))
@pytest.mark.parametrize(
    ("first", "queue", "last"),
    [
        ("pool child", "hcpu", "manager"),
        ("prefork worker", "hcpu", "host"),
        ("solo worker", "hgpu", "guard"),
        pytest.param("solo worker", "hgpu", "guard and host", marks=at_length),
    ],
)
def test_nobody_is_left_of_a_host(hosted: Hosted, first: str, queue: str, last: str, attempt: int) -> None:
    """As with ``Embedded``; the one who asked for its workers takes them along, and the host stays."""
    for each in ("hcpu", "hgpu"):
        hosted.start_some(each)
    gone, others = hosted.of[queue], hosted.of["hgpu" if queue == "hcpu" else "hcpu"]
    hosted.kill(first)
    nobody_of(gone)
    assert all(map(alive, others[:3]))
    hosted.start_some(queue)
    assert all(map(alive, hosted.of[queue][:3]))
    if " and " in last:
        wait_for_looks(hosted.host.url)

    stay = [hosted.host.process.pid, hosted.host.pid] if last == "manager" else []
    stay += [pid for each in stay for pid in monitors_of(each)]
    began = time.monotonic()
    hosted.kill(last)
    nobody_but(stay, hosted.census)
    nothing_shared(hosted.ran)
    if last != "manager":
        assert time.monotonic() - began < LIMIT
    assert all(map(alive, stay))


@at_length
@pytest.mark.parametrize("attempt", range(ROUNDS))
def test_a_detached_worker_keeps_what_its_node_started_until_it_is_killed_itself(
    workplace: Any, redis_url: str, census: Census, attempt: int
) -> None:
    """The host that it has by then is no parent of it: its own monitor ends what that started."""
    workplace.config("hgpu", 'imports = ["tests.nodes.forking"]\nworker_pool = "solo"\n')
    around = {VARIABLE: census.token}
    with running_host(workplace.folder, redis_url, environment=around) as host, Manager(redis_url) as manager:
        workers = manager.hosts[host.name].start("hgpu", detach=True)
        pipeline = warped("tests.nodes.forking.Deserts", "hgpu")
        (message,) = Runner(redis_url).stream(pipeline, [Message(0)])
        worker, *started = message.payload[:3]  # its daemon is nobody's
        census.look(host.process.pid)
        os.kill(host.pid, signal.SIGKILL)
        nobody_but([worker, *descendants(worker)], census)
        assert all(map(alive, (worker, *started)))
        with running_host(workplace.folder, redis_url, name=host.name, environment=around):
            eventually(lambda: [each.state for each in workers.status()] == ["up"], "its adoption")
            assert [each.pid for each in workers.status()] == [worker]
            wait_for_looks(redis_url)
            os.kill(worker, signal.SIGKILL)
            nobody_of(started)
            workers.stop()
    nobody_but([], census)
