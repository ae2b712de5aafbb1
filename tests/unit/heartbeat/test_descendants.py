"""What a process started is found once it is gone, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celerypipe.heartbeat.descendants import Descendants, end_group
from tests.servers import eventually
from tests.servers.processes import alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a /proc")

#: A boss; it starts what it is told to, each time it is told, and says the pids. All of them sleep on.
BOSS = """
import os, subprocess, sys, time
from multiprocessing.shared_memory import SharedMemory
SLEEP = ["sleep", "60"]
kept = {}

def fork(nested=None):
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.write(tell, b"%d " % (nested() if nested else 0))
        time.sleep(60)
    return f"{child} {int(os.read(told, 9))}"

def orphan():
    return subprocess.check_output(["sh", "-c", "sleep 60 > /dev/null & echo $!"], text=True)

WAYS = {
    "process": lambda: subprocess.Popen(SLEEP).pid,
    "grandchild": lambda: fork(lambda: subprocess.Popen(SLEEP).pid),
    "group": lambda: subprocess.Popen(SLEEP, process_group=0).pid,
    "session": lambda: subprocess.Popen(SLEEP, start_new_session=True).pid,
    "orphan": orphan,
    "memory": lambda: kept.setdefault(0, SharedMemory(create=True, size=1)).name,
}
for line in sys.stdin:
    print(*[WAYS[way]() for way in line.split()], flush=True)
"""


class Family:
    """A boss, which leads its group or is in that of another process, and what it started."""

    def __init__(self, *, leads: bool) -> None:
        self.mate = subprocess.Popen(["sleep", "60"], start_new_session=not leads)
        self.boss = subprocess.Popen(
            [sys.executable, "-c", BOSS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0 if leads else None,
        )
        self.pids: list[int] = []

    def ask(self, ways: str) -> list[str]:
        assert self.boss.stdin is not None
        assert self.boss.stdout is not None
        self.boss.stdin.write(f"{ways}\n")
        self.boss.stdin.flush()
        return self.boss.stdout.readline().split()

    def start(self, ways: str) -> list[int]:
        found = [int(pid) for pid in self.ask(ways) if pid != "0"]
        self.pids += found
        return found

    def kill(self) -> None:
        self.boss.kill()
        self.boss.wait()

    def close(self) -> None:
        for pid in filter(alive, self.pids):
            os.kill(pid, 9)
        for process in (self.boss, self.mate):
            process.kill()
            process.communicate()


@pytest.fixture(params=[True, False], ids=["leads", "led"])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    found = Family(leads=request.param)
    yield found
    found.close()


def test_those_that_were_seen_end_with_it_and_those_with_a_session_of_their_own_stay(family: Family) -> None:
    below = Descendants(family.boss.pid)
    started = family.start("process grandchild group")
    (stays,) = family.start("session")
    below.look()
    family.kill()
    assert all(map(alive, started))
    below.end()
    eventually(lambda: not any(map(alive, started)), "the end of all that it started")
    assert alive(stays)
    assert alive(family.mate.pid)


def test_where_nothing_is_to_stay_a_session_of_its_own_saves_nobody(family: Family) -> None:
    below = Descendants(family.boss.pid, nothing_stays=True)
    (seen,) = family.start("session")
    below.look()
    (new,) = family.start("session")
    family.kill()
    below.end()
    eventually(lambda: not alive(seen), "the end of what was seen")
    assert alive(new)  # nobody can tell whose it was
    assert alive(family.mate.pid)


def test_those_that_were_started_since_end_with_it_too(family: Family) -> None:
    below = Descendants(family.boss.pid)
    below.look()
    started = family.start("process grandchild orphan")
    family.kill()
    below.end()
    eventually(lambda: not any(map(alive, started)), "the end of all that it started")
    assert alive(family.mate.pid)


def test_what_lost_its_parent_is_remembered(family: Family) -> None:
    below = Descendants(family.boss.pid)
    child, grandchild = family.start("grandchild")
    below.look()
    os.kill(child, 9)
    below.look()
    family.kill()
    below.end()
    eventually(lambda: not alive(grandchild), "the end of the grandchild")


def test_a_boss_that_is_about_to_go_is_left_alone(family: Family) -> None:
    below = Descendants(family.boss.pid)
    started = family.start("process grandchild")
    below.end()
    eventually(lambda: not any(map(alive, started)), "the end of all that it started")
    assert family.boss.poll() is None


def test_what_tidies_up_behind_the_dead_does_so(family: Family) -> None:
    below = Descendants(family.boss.pid)
    kept = Path("/dev/shm", *family.ask("memory"))  # noqa: S108  # where multiprocessing keeps it
    started = family.start("process")
    below.look()
    assert kept.exists()
    family.kill()
    if os.getpgid(started[0]) == family.boss.pid:
        assert end_group(family.boss.pid)
    else:
        below.end()
    eventually(lambda: not any(map(alive, started)), "the end of all that it started")
    eventually(lambda: not kept.exists(), "the end of its memory")
