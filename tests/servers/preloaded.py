"""The script of a zygote (:mod:`tests.servers.zygote`): imports what workers and commands need, and forks them.

What reads the environment, or keeps what belongs to one process, is made anew in a fork: a worker imports the Celery
application as any other process does, and for a command it is pointed to the Redis of that environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import platform
import runpy
import signal
import socket
import sys
import termios
import threading
import types
from typing import Any

PRELOADED = (
    "celery.bin.celery",
    "celery.apps.worker",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.backends.base",
    "celery.events.state",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer.tasks",
    "celery.worker.pidbox",
    "celery.worker.strategy",
    "kombu.asynchronous.hub",
    "kombu.transport.redis",
    "celerypipe.cache.desk",
    "celerypipe.check.preflight",
    "celerypipe.cli.check",
    "celerypipe.cli.commands",
    "celerypipe.cli.run",
    "celerypipe.cli.status",
    "celerypipe.nodes.image_files",
    "celerypipe.nodes.json_lines",
    "celerypipe.nodes.json_websocket",
    "celerypipe.nodes.notifier_websocket",
    "celerypipe.worker.activation.activation",
    "celerypipe.worker.served",
    "celerypipe.worker.streams",
    "celerypipe.worker.watchdog",
)
#: The longest order; it has an environment in it.
LONGEST = 1 << 18


def main() -> None:
    """Import, and answer orders until nobody gives any more. A fork leaves the loop, and ends as any process does."""
    del sys.path[0]  # this script's folder, in which ``redis`` is another thing
    gc.disable()  # all that is imported stays
    known = len([path for path in os.environ["PYTHONPATH"].split(os.pathsep) if path])
    libraries = sys.path[known:]
    for name in PRELOADED:
        importlib.import_module(name)
    platform.platform()  # which Celery shows, and which starts a process to find out
    assert threading.active_count() == 1
    gc.freeze()
    gc.enable()
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        order, streams = serve(orders)
    if order is not None:
        become(order, streams, libraries)


def serve(orders: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """Return in a fork, with what it is to become, and where the orders end, with None."""
    while True:
        data, streams, _, _ = socket.recv_fds(orders, LONGEST, 3)
        if not data:
            return None, []
        order = json.loads(data)
        if "reap" in order:
            pid, status = os.waitpid(order["reap"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif not (answer := os.fork()):
            return order, streams
        for stream in streams:
            os.close(stream)
        orders.send(json.dumps(answer).encode())


def forget_application() -> None:
    """Let the Celery application be made where a worker's command line is known, as in any other process."""
    del sys.modules["celerypipe.celery"], sys.modules["celerypipe.celery.application"]
    del sys.modules["celerypipe"].celery


def serve_application() -> None:
    """Point the Celery application to the Redis of this environment, as it does itself when it is imported."""
    application = sys.modules["celerypipe.celery.application"]
    with contextlib.suppress(Exception):  # a command says what is wrong with an address
        application.app.serve(application.named_redis(os.environ).or_default)


def open_streams(encoding: str) -> None:
    """Begin with standard streams that know what they lead to: a file, a pipe, a terminal; as with PYTHONUNBUFFERED."""

    def written(number: int, errors: str) -> io.TextIOWrapper:
        raw = os.fdopen(number, "wb", 0, closefd=False)
        return io.TextIOWrapper(raw, encoding, errors, write_through=True)

    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding=encoding, closefd=False)
    sys.stdout = sys.__stdout__ = written(1, "strict")
    sys.stderr = sys.__stderr__ = written(2, "backslashreplace")


def become(order: dict[str, Any], streams: list[int], libraries: list[str]) -> None:
    """Be what Python makes of the words of this order: a module, a text, or a file."""
    os.setsid()
    for number, stream in zip((1, 2, 0), streams, strict=False):
        os.dup2(stream, number)
        os.close(stream)
    if len(streams) == 3 and os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in order["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    open_streams(os.environ.get("PYTHONIOENCODING", "utf-8"))
    named = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    first, *words = order["words"]
    if (first, *words[:1]) == ("-m", "celery") or words[:2] == ["celerypipe", "worker"]:
        forget_application()
    else:
        serve_application()
    sys.orig_argv = [sys.executable, first, *words]  # a worker that starts anew becomes that
    sys.argv = [first, *words]
    if first == "-m":
        sys.path[:] = [order["cwd"], *named, *libraries]
        del sys.argv[0]
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[:] = ["", *named, *libraries]
        del sys.argv[1]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(words[0], vars(main))  # noqa: S102  # which is what Python does with it
    else:
        sys.path[:] = [os.path.dirname(first), *named, *libraries]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
