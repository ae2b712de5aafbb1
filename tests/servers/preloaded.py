"""The script of a zygote (:mod:`tests.servers.zygote`): imports what workers and commands need, and forks them.

What reads the environment, or keeps what belongs to one process, is made anew in a fork: a worker imports the Celery
application as any other process does, and for a command it is pointed to the Redis of that environment.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import platform
import runpy
import select
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
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.consumer.tasks",
    "celery.worker.pidbox",
    "celery.worker.strategy",
    "kombu.asynchronous.hub",
    "kombu.transport.redis",
    "celerypipe.cache.desk",
    "celerypipe.celery.events",
    "celerypipe.celery.request",
    "celerypipe.celery.start",
    "celerypipe.check.preflight",
    "celerypipe.cli.check",
    "celerypipe.cli.commands",
    "celerypipe.cli.run",
    "celerypipe.cli.status",
    "celerypipe.nodes.audio_file",
    "celerypipe.nodes.console",
    "celerypipe.nodes.data_streamer",
    "celerypipe.nodes.files",
    "celerypipe.nodes.image_files",
    "celerypipe.nodes.json_http",
    "celerypipe.nodes.json_lines",
    "celerypipe.nodes.json_websocket",
    "celerypipe.nodes.notifier_http",
    "celerypipe.nodes.notifier_websocket",
    "celerypipe.nodes.passthrough_identity",
    "celerypipe.nodes.resample",
    "celerypipe.nodes.srt",
    "celerypipe.nodes.vad",
    "celerypipe.worker.activation.activation",
    "celerypipe.worker.arrivals",
    "celerypipe.worker.control",
    "celerypipe.worker.handlers",
    "celerypipe.worker.options",
    "celerypipe.worker.presence",
    "celerypipe.worker.served",
    "celerypipe.worker.shutdown",
    "celerypipe.worker.spawned",
    "celerypipe.worker.streams",
    "celerypipe.worker.watchdog",
)
#: The longest order; it has an environment in it.
LONGEST = 1 << 18


def main() -> None:
    """Import, and answer orders until nobody gives any more. A fork leaves the loop, and becomes what was ordered."""
    ending = Ending()
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
    with contextlib.ExitStack() as places:
        orders, door = (places.enter_context(socket.socket(fileno=int(number))) for number in sys.argv[1:])
        order, streams = serve(orders, door, places)
    if order is not None:
        with ending:
            become(order, streams, libraries)


class Ending:
    """The end of a fork: as of any process but for the last, to take apart what was imported: most of what it costs."""

    def __init__(self) -> None:
        """Before all others that are to be called at the end: the first is called last."""
        self._status: int | None = None
        atexit.register(self._leave)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Know the status; who is interrupted (Ctrl-C) ends by that signal, and who forked it by none."""
        if isinstance(error, SystemExit):
            code = 0 if error.code is None else error.code
            self._status = code & 0xFF if isinstance(code, int) else 1
        elif not isinstance(error, KeyboardInterrupt):
            self._status = int(error is not None)

    def _leave(self) -> None:
        if self._status is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or None
                    stream.flush()
            os._exit(self._status)


def serve(
    orders: socket.socket, door: socket.socket, places: contextlib.ExitStack
) -> tuple[dict[str, Any] | None, list[int]]:
    """Return in a fork, with what it is to become, and where the orders of who started this end, with None.

    Others come by the door. What was forked ends with who started this, who may have been killed.
    """
    living: set[int] = set()
    askers = {orders.fileno(): orders}
    waiting = select.poll()
    for place in (orders, door):
        waiting.register(place, select.POLLIN)
    while True:
        for number, _ in waiting.poll():
            if number == door.fileno():
                other = places.enter_context(door.accept()[0])
                askers[other.fileno()] = other
                waiting.register(other, select.POLLIN)
                continue
            asker = askers[number]
            try:
                data, streams, _, _ = socket.recv_fds(asker, LONGEST, 3)
            except ConnectionError:  # it was killed
                data = b""
            if not data and asker is orders:
                end(living)
                return None, []
            if not data:
                waiting.unregister(asker)
                askers.pop(number).close()
                continue
            order = json.loads(data)
            if "reap" in order:
                pid, status = os.waitpid(order["reap"], os.WNOHANG)
                living.discard(pid)
                answer = os.waitstatus_to_exitcode(status) if pid else None
            elif not (answer := os.fork()):
                return order, streams
            else:
                living.add(answer)
            for stream in streams:
                os.close(stream)
            with contextlib.suppress(ConnectionError):
                asker.send(json.dumps(answer).encode())


def end(pids: set[int]) -> None:
    """Kill what was forked and not reaped, each with its session: nobody asks for it any more."""
    for pid in pids:
        for kill in (os.kill, os.killpg):  # in its first moments it leads none yet
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)


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
