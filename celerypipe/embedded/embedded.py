"""A private Redis, and the workers a pipeline needs, for as long as a ``with`` block runs.

::

    with Embedded(pipeline) as redis_url:
        report = Runner(redis_url).run(pipeline)

Nothing of it outlives the process: a supervisor of their own (:mod:`celerypipe.embedded.supervisor`) ends them when
the block does, and when this process dies, even by ``kill -9``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.modules import require_top
from celerypipe.contract.moving import how_to_move, is_only_here
from celerypipe.definition.names import wrong_queue
from celerypipe.definition.pipeline import Pipeline
from celerypipe.embedded.edits import Edits
from celerypipe.embedded.server import find_redis_server
from celerypipe.embedded.supervisor import GRACE, Plan
from celerypipe.environments.building import Planned, plan, ready
from celerypipe.environments.wanted import wanted_by
from celerypipe.errors import ConfigError, RedisUnavailable
from celerypipe.folders import distinct, path_of
from celerypipe.heartbeat.procfs import children
from celerypipe.process import forks
from celerypipe.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds beyond its own grace that the supervisor gets to end.
LEAVE_SECONDS = GRACE + 5.0


#: Queues by name; a mapping gives the number of slots of their workers.
Queues = Mapping[str, int] | Sequence[str]


class Embedded:
    """A context manager that starts a temporary Redis and workers, returns its URL, and stops them at the end."""

    def __init__(
        self,
        pipeline: Pipeline | Queues | None = None,
        *,
        queues: Queues = (),
        log: Path | None = None,
        reload: bool = False,
        on_event: Callable[[str], None] | None = None,
    ) -> None:
        """Say what will be needed; nothing starts before the block is entered. With no queue that is Redis alone.

        ``pipeline``: One worker for each queue of its warped nodes, which know its plugins. Without a pipeline, for
        functions that are called, the queues themselves: ``Embedded(["fns"])``.
        ``queues``: Further queues; a mapping gives the number of slots of their workers.
        ``log``: A folder to keep the workers' logs in; else they are removed in the end.
        ``reload``: Look once a second whether the code of the pipeline's nodes was edited, and restart their workers
        with it, once that imports.
        ``on_event``: Receives a line of text whenever something starts, or ends unasked; from another thread.
        """
        slots = _slots(queues)
        if pipeline is not None and not isinstance(pipeline, Pipeline):
            slots |= _slots(pipeline)
            pipeline = None
        imports: dict[str, set[str]] = {}
        for node in pipeline.warped if pipeline is not None else ():
            slots.setdefault(node.queue, None)
            # The module of a dotted mark; a short mark is found without one.
            if module := node.mark.rpartition(".")[0]:
                if is_only_here(node.mark):
                    text = how_to_move(node.mark.partition(".")[2], node.warp_configuration.queue or "")
                    raise ConfigError(f"node {node.name!r}: {text}")
                require_top(node.mark)  # else its worker would end, seconds later
                imports.setdefault(node.queue, set()).add(module)
        self._plan = Plan(
            queues=slots,
            imports={name: sorted(modules) for name, modules in imports.items()},
            environment=_environment(pipeline),
            log=str(path_of(log).absolute()) if log is not None else None,
        )
        self._on_event = on_event or (lambda text: None)
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._supervisor: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._folder = ""
        self._edits: Edits | None = None
        if reload and pipeline is not None:
            known = Catalogue((*pipeline.plugin_folders, *Settings.from_environment().plugins))
            environment = self._plan.environment
            self._edits = Edits(
                pipeline.warped, known, environment, python=_python_of, restart=self._restart, say=self._tell
            )

    def __enter__(self) -> str:
        """Start; return when Redis answers and every queue has a live worker."""
        find_redis_server()  # say at once, and in this process, that there is none
        self._build_environments()
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "celerypipe.embedded.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": self._plan.environment["PYTHONPATH"]},
            start_new_session=True,  # Ctrl-C is for the runner, which drains first
        )
        forks.keep(self)
        self._reader = threading.Thread(target=self._read, args=(self._supervisor,), name="embedded", daemon=True)
        self._reader.start()
        try:
            return self._start(self._supervisor)
        except BaseException:  # Ctrl-C while waiting must not leave anything behind either
            self._stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop all of it."""
        self._stop()

    def leave_to_parent(self) -> None:
        """Called in a fork, such as a pool of a local node: the supervisor waits for the last one that has its pipe."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None and supervisor.stdin is not None:
            with contextlib.suppress(OSError):
                supervisor.stdin.close()

    def _build_environments(self) -> None:
        """Here, where it may take its time and be interrupted; each worker then enters its own."""
        for planned in filter(None, map(_planned, self._plan.queues)):
            os.close(ready(planned, self._tell))

    def _start(self, supervisor: subprocess.Popen[str]) -> str:
        assert supervisor.stdin is not None  # noqa: S101  # it is a pipe
        with contextlib.suppress(BrokenPipeError):  # the answer below says that it is gone
            supervisor.stdin.write(json.dumps(asdict(self._plan)) + "\n")
            supervisor.stdin.flush()
        if self._plan.queues:
            import_module("celerypipe.celery.item")  # a run needs it, and its workers take as long to come up
        answer = self._answers.get()
        if "ready" in answer:
            self._folder = answer["folder"]
            if self._edits is not None:
                self._edits.start()
            return str(answer["ready"])
        if answer.get("failed"):
            raise ConfigError(answer["failed"])
        raise RedisUnavailable("the embedded Redis and its workers were killed while they started; try again")

    def _read(self, supervisor: subprocess.Popen[str]) -> None:
        """Take everything the supervisor says, until it ends."""
        assert supervisor.stdout is not None  # noqa: S101  # it is a pipe
        with supervisor.stdout as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break  # it was killed over it
                fact = json.loads(line)
                if "event" in fact:
                    self._tell(fact["event"])
                else:
                    self._answers.put(fact)
        self._answers.put({"failed": ""})
        if self._folder and self._supervisor is not None:
            # Without its folder nobody waits for this Redis to come back.
            shutil.rmtree(self._folder, ignore_errors=True)
            self._tell("the embedded Redis and its workers were killed")

    def _tell(self, text: str) -> None:
        try:
            self._on_event(text)
        except Exception:  # the caller's, and somebody waits for what comes next
            logger.exception("on_event failed over: %s", text)

    def _restart(self, queue: str) -> None:
        supervisor = self._supervisor
        if supervisor is not None and supervisor.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it ends just now
                supervisor.stdin.write(json.dumps({"restart": queue}) + "\n")
                supervisor.stdin.flush()

    def _stop(self) -> None:
        if self._edits is not None:
            self._edits.close()
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None or self._reader is None:
            return
        assert supervisor.stdin is not None  # noqa: S101  # it is a pipe
        with contextlib.suppress(BrokenPipeError):
            supervisor.stdin.close()
        try:
            supervisor.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in children(supervisor.pid) or [supervisor.pid]:  # its guard ends the rest, then itself
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            supervisor.wait()
        self._reader.join(LEAVE_SECONDS)
        if self._folder:  # it removed its folder itself, unless it was killed
            shutil.rmtree(self._folder, ignore_errors=True)


def _planned(queue: str) -> Planned | None:
    """Return the environment of the workers of a queue; None: they run with what this process has."""
    settings = Settings.from_environment()
    wanted = wanted_by(queue, settings.worker_configs)
    return plan(wanted, settings.environments) if wanted is not None else None


def _python_of(queue: str) -> str:
    planned = _planned(queue)
    return str(planned.place.python) if planned is not None else sys.executable


def _slots(queues: Queues) -> dict[str, int | None]:
    """Queue → slots of its worker; None: as many as there are processors."""
    names = [queues] if isinstance(queues, str) else queues
    if not isinstance(names, Mapping | Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f'a pipeline, or names of queues such as ["gpu", "io"], is needed, not {queues!r}')
    for name in names:
        if complaint := wrong_queue(name):
            raise ConfigError(f"queues: {complaint}")
    return dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)


def _environment(pipeline: Pipeline | None) -> dict[str, str]:
    """Let workers find and touch what the pipeline may here, for nobody else reaches them, and import what we can."""
    allowed = pipeline.reach.folders if pipeline is not None else None
    plugins = pipeline.plugin_folders if pipeline is not None else ()
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    own = [path for path in sys.path if os.path.isdir(path) and path not in installed and "lib-dynload" not in path]
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    named = os.environ.get("CELERYPIPE_PLUGINS", "").split(os.pathsep)
    folders = distinct([*(folder.absolute() for folder in plugins), *map(path_of, filter(None, named))])
    return {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, [*known, *own]))),
        "CELERYPIPE_ALLOW": _joined("CELERYPIPE_ALLOW", allowed if allowed is not None else [Path("/")]),
        "CELERYPIPE_PLUGINS": _joined("CELERYPIPE_PLUGINS", folders),
    }


def _joined(variable: str, folders: Iterable[Path]) -> str:
    """Return the folders as the variable has them for the workers."""
    names = [str(folder) for folder in folders]
    for name in names:
        if os.pathsep in name:  # its workers would take it for two, and neither was meant
            raise ConfigError(
                f"{name!r} has a {os.pathsep!r}, which separates the folders in {variable}; rename the folder"
            )
    return os.pathsep.join(names)
