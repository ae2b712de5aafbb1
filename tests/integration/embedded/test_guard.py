"""The guard: nothing outlives the process below it, and how that ended is how it ends."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.servers import PATIENCE, ROOT, eventually
from tests.servers.census import Census
from tests.servers.processes import alive, children_of

#: Says its process, and does what it is told.
PROGRAM = """
import os, signal, subprocess, sys, time
from celerypipe.embedded.guard import end_below, end_strangers, guarded
{first}
guarded()
print(os.getpid(), flush=True)
{then}
"""
#: A command that leaves its parent, and has a session of its own.
DAEMON = "['sh', '-c', 'setsid sleep 600 > /dev/null & echo $!']"


@pytest.fixture
def census() -> Iterator[Census]:
    found = Census()
    yield found
    for pid in found.left():
        os.kill(pid, signal.SIGKILL)


@contextmanager
def launch(
    census: Census, then: str, *, first: str = "", inside: Sequence[str] = (), **how: object
) -> Iterator[subprocess.Popen[str]]:
    program = [*inside, sys.executable, "-c", PROGRAM.format(first=first, then=then)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **how}
    with subprocess.Popen(program, text=True, cwd=ROOT, env=census.environment, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        except BaseException:  # a test that fails waits for nobody
            for pid in census.left():
                os.kill(pid, signal.SIGKILL)
            raise


def nobody(census: Census) -> None:
    eventually(lambda: not census.left(), f"the end of {census.left()}")


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("sys.exit(78)", 78),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_it_ends_what_is_left_and_then_as_the_one_below_it(census: Census, end: str, status: int) -> None:
    """Whoever started it ignores ends of children, which is handed down to it."""
    first = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    with launch(census, f"subprocess.run({DAEMON}); subprocess.Popen(['sleep', '600']); {end}", first=first) as process:
        assert process.wait(PATIENCE) == status
    assert not census.left()


def test_a_signal_is_handed_on(census: Census) -> None:
    # Not by print, which it may interrupt.
    then = "signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b'heard\\n')); print(flush=True); time.sleep(600)"
    with launch(census, then) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "heard\n"
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
    nobody(census)


def test_the_one_below_hears_that_the_guard_was_killed_also_where_sigterm_was_ignored(census: Census) -> None:
    first = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    with launch(census, "time.sleep(600)", first=first) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    nobody(census)


def test_a_terminal_that_is_closed_ends_both(census: Census) -> None:
    """That is told to who leads the session, the guard, alone."""
    ours, theirs = pty.openpty()
    then = "time.sleep(600)"
    control = "import fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    with launch(census, then, first=control, stdin=theirs) as process:
        os.close(theirs)
        assert process.stdout is not None
        process.stdout.readline()
        os.close(ours)
        assert process.wait(PATIENCE) == -signal.SIGHUP
    nobody(census)


def test_strangers_are_ended_and_own_children_of_any_thread_are_not(census: Census) -> None:
    then = f"""
import threading
own, begun = subprocess.Popen(['sleep', '600']), threading.Event()
def start():
    global other
    other = subprocess.Popen(['sleep', '600'])
    begun.set()
    time.sleep(600)
threading.Thread(target=start, daemon=True).start()
begun.wait()
free, bound = (int(subprocess.check_output({DAEMON})) for _ in range(2))
spared = {{(free, int(open(f'/proc/{{free}}/stat').read().split()[21]))}}
print(own.pid, other.pid, free, bound, flush=True)
while True:
    end_strangers([own.pid], lambda: spared)
    time.sleep(0.02)
"""
    with launch(census, then) as process:
        assert process.stdout is not None
        process.stdout.readline()
        *stay, goes = map(int, process.stdout.readline().split())
        eventually(lambda: not alive(goes), "the end of the stranger")
        assert all(map(alive, stay))
        process.terminate()
    nobody(census)


def test_who_tidies_up_has_a_moment_for_that(census: Census) -> None:
    """It is known by its command; one that does not end by itself is ended."""
    tidier = "print('up', flush=True); time.sleep(0.3); print('tidied', flush=True); time.sleep(600)"
    then = f"""
tidier = subprocess.Popen([sys.executable, '-c', "import time; {tidier}", 'resource_tracker'])
time.sleep(600)
"""
    with launch(census, then) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.stdout.readline() == "tidied\n"
    assert not census.left()


def test_who_tidies_up_behind_a_stranger_is_not_ended_with_it(census: Census) -> None:
    tidier = "import time; print('up', flush=True); time.sleep(0.3); print('tidied', flush=True)"
    then = f"""
stranger = ['sh', '-c', '"$@" resource_""tracker & sleep 600', 'sh', sys.executable, '-c', {tidier!r}]
leaves = 'import os, subprocess, sys; subprocess.Popen(sys.argv[1:])'
subprocess.run([sys.executable, '-c', leaves, *stranger])
sys.stdin.readline()
while True:
    end_strangers([])
    time.sleep(0.02)
"""
    with launch(census, then) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline().strip().isdigit()
        assert process.stdout.readline() == "up\n"
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "tidied\n"
        process.terminate()
    nobody(census)


def test_where_there_is_no_proc_it_goes_on_without_a_guard(census: Census) -> None:
    first = "import celerypipe.embedded.guard as guard; guard.process_of = lambda pid: None"
    with launch(census, "print('here', os.getpid()); end_strangers([]); end_below()", first=first) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert said.split() == [str(process.pid), "here", str(process.pid)]
    assert process.returncode == 0


def test_as_process_1_of_a_container_it_ends_in_the_same_way(census: Census) -> None:
    """Such a one ends by no signal of its own: the status says which one it was."""
    inside = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces of processes are not allowed here")
    with launch(
        census, f"subprocess.run({DAEMON}); print('ready', flush=True); time.sleep(600)", inside=inside
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)][::2] == ["2\n", "ready\n"]
        for pid in children_of(process.pid):
            os.kill(pid, signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert not census.left()
