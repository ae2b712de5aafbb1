"""Functions and nodes that fork processes of their own (``imports = ["tests.nodes.forking"]``)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Queue
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory

from celerypipe import Message, Proc, Runner, Source, node

#: What a worker of these nodes has in its configuration.
CONFIG = 'imports = ["tests.nodes.forking"]\n'
FORK = multiprocessing.get_context("fork")


def square(number: int) -> int:
    return number * number


@node(queue="forks", timeout=20)
def pooled(number: int) -> list[int]:
    """Ends the children of a pool by SIGTERM."""
    with FORK.Pool(2) as pool:
        return pool.map(square, range(number))


def _tell_handlers(there: Connection) -> None:
    names = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGINT", "SIGALRM")
    usual = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
    there.send([name for name in names if signal.getsignal(getattr(signal, name)) not in usual])


@node(queue="forks", timeout=20)
def handlers() -> list[str]:
    """Which signals a child of this process hears in a way of its own."""
    here, there = FORK.Pipe(duplex=False)
    _forked(lambda: _tell_handlers(there))
    return here.recv()  # type: ignore[no-any-return]


@node(queue="forks", timeout=20)
def terminated() -> int:
    """The exit code of a child that would sleep on, after SIGTERM."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@node(queue="forks", timeout=20)
def strays(way: str) -> tuple[str, int]:
    """Lets a child go where its parent goes: it returns, raises, or exits."""
    child = os.fork()
    if child == 0:
        if way == "raise":
            raise ValueError("in the child")
        if way == "exit":
            sys.exit(7)
        return "child", 0
    return "parent", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@node(queue="forks", timeout=20)
def asks(url: str) -> int:
    """Has a child call another function on a worker."""
    here, there = FORK.Pipe(duplex=False)

    def ask() -> None:
        with Runner(url) as runner:
            there.send(runner.submit(squared, 7).result(timeout=20))

    _forked(ask)
    return here.recv()  # type: ignore[no-any-return]


@node(queue="forks", timeout=20)
def executed(method: str, number: int) -> list[int]:
    """Has the processes of an executor work, started that way."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        return list(executor.map(square, range(number)))


def _serve(numbers: Queue[int | None], squares: Queue[int]) -> None:
    while (number := numbers.get()) is not None:
        squares.put(square(number))


@node(queue="forks", timeout=20)
def loaded(number: int) -> list[int]:
    """Has a daemon process work, fed by a queue, as a loader of data does."""
    numbers, squares = FORK.Queue(), FORK.Queue()
    loader = FORK.Process(target=_serve, args=(numbers, squares), daemon=True)
    loader.start()
    for each in (*range(number), None):
        numbers.put(each)
    found = [squares.get(timeout=10) for _ in range(number)]
    loader.join(10)
    return found


@node(queue="forks", timeout=20)
def left() -> list[int]:
    """Starts processes that sleep on, and forgets them; its own process comes first."""
    process = FORK.Process(target=time.sleep, args=(600,))
    process.start()
    executor = ProcessPoolExecutor(1, mp_context=FORK)
    executor.submit(time.sleep, 600)
    orphan = subprocess.check_output(["sh", "-c", "sleep 600 > /dev/null & echo $!"], text=True)
    command = subprocess.Popen(["sleep", "600"])
    _forgotten.extend((executor, command))
    return [os.getpid(), process.pid or 0, *(executor._processes or {}), int(orphan), command.pid]


#: What would say when it is let go of that it is still at work.
_forgotten: list[object] = []


@node(queue="forks", timeout=20)
def squared(number: int) -> int:
    return square(number)


def _forked(work: object) -> None:
    child = os.fork()
    if child == 0:
        try:
            work()  # type: ignore[operator]
        finally:
            os._exit(0)
    os.waitpid(child, 0)


class Strays(Source):
    """Forks a child that goes on as its parent does, and yields what became of it."""

    def messages(self) -> Iterator[Message]:
        child = os.fork()
        if child == 0:
            yield Message("child")
        yield Message(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


class Terminates(Proc):
    """Starts a child that would sleep on, terminates it, and sends its exit code."""

    def update(self, message: Message) -> Message:
        child = FORK.Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(10)
        code = child.exitcode
        child.kill()
        return message.with_payload(code)


class Deserts(Proc):
    """Starts a command, one with a session of its own and a daemon, and forgets them; its own process comes first.

    It has shared memory that is named after that.
    """

    def update(self, message: Message) -> Message:
        plain = subprocess.Popen(["sleep", "600"])
        apart = subprocess.Popen(["sleep", "600"], start_new_session=True)
        daemon = subprocess.check_output(["sh", "-c", "setsid sleep 600 > /dev/null & echo $!"], text=True)
        shared = SharedMemory(f"deserts-{os.getpid()}", create=True, size=4096)
        _forgotten.extend((plain, apart, shared))
        return message.with_payload([os.getpid(), plain.pid, apart.pid, int(daemon)])
