"""What whoever starts a worker decides: on the command line, in the call, or in the file of its first queue."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import billiard
import click
from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool as StockPrefork
from celery.utils.sysinfo import cpu_budget, is_auto_concurrency
from click.core import ParameterSource

from celerypipe.celery.prefork import TaskPool
from celerypipe.errors import ConfigError
from celerypipe.process.memory import memory_here
from celerypipe.worker.activation.quota import Limits
from celerypipe.worker.activation.shelf import Bounds
from celerypipe.worker.activation.stuck import GRACE_ALONE, GRACE_AMONG_OTHERS

#: Options of ``celery`` that say nothing to a worker of ours.
UNHEARD = {
    "config": "a worker runs by worker_configs/<queue>.toml",
    "loader": "a worker runs by worker_configs/<queue>.toml",
    "result_backend": "results go back to their run, and nowhere else",
}


def listed(value: Any) -> list[str]:
    """Return the items of a list, or of a text with commas."""
    return [item.strip() for item in (value.split(",") if isinstance(value, str) else value or ()) if item.strip()]


def given(parameter: str, options: Mapping[str, Any]) -> bool:
    """Whether whoever started the worker decided this themselves: on the command line, or in the call."""
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(parameter) if context is not None else None
    if source is None:
        return options.get(parameter) is not None
    return source.name in ("COMMANDLINE", "ENVIRONMENT")


def unasked() -> list[str]:
    """Say which options came from the environment, maybe for another project, and which typed ones are not heard."""
    context = click.get_current_context(silent=True)
    if context is None:
        return []
    sources = {name: context.get_parameter_source(name) for name in context.params}
    texts = [
        f"--{name.replace('_', '-')} comes from the environment: unset CELERY_WORKER_{name.upper()} if it is not meant"
        for name, source in sources.items()
        if source is ParameterSource.ENVIRONMENT
    ]
    typed = [
        f"--{name.replace('_', '-')} is ignored: {cure}"
        for name, cure in UNHEARD.items()
        if context.find_root().get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    return texts + typed


def exit_option(text: str | None) -> float | None:
    """Read ``--exit-when-stuck``: infinite if it came without a number, None if it did not come."""
    if text is None or text == "usual":
        return None if text is None else math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"--exit-when-stuck {text}: give seconds, 0 for a worker that stays, or nothing at all")
    return seconds


#: The pools that nodes run in.
POOLS = ("prefork", "solo", "threads")


def autoscale_option(value: Any) -> int:
    """Read ``--autoscale``: how far a pool may grow; 0: it does not."""
    words = value.split(",") if isinstance(value, str) else value or ()
    return max((int(word) for word in words if word), default=0)


def put_right(worker: Any, autoscale: int) -> tuple[str, int]:
    """Put right what Celery's ``worker`` read from its command line before any file; return its pool, and the slots."""
    conf = worker.app.conf
    if not given("pool", {"pool": None}):
        worker.pool_cls = conf.worker_pool
    worker.pool_cls = get_implementation(worker.pool_cls)
    if worker.pool_cls is StockPrefork:
        worker.pool_cls = TaskPool
    if not given("loglevel", {"loglevel": worker.loglevel}):
        worker.loglevel = logging.INFO
    if not given("prefetch_multiplier", {}):
        worker.prefetch_multiplier = conf.worker_prefetch_multiplier
    # The worker's user types no flags: gossip and mingle are switched off here.
    worker.options.update(without_gossip=True, without_mingle=True)
    module = worker.pool_cls.__module__.rpartition(".")[2]
    pool = "threads" if module == "thread" else module
    refuse(worker, pool, autoscale)
    if pool == "solo":
        worker.concurrency = 1
    elif is_auto_concurrency(worker.concurrency):
        worker.concurrency = cpu_budget(use_cgroup_quota=pool == "prefork").count
    return pool, autoscale or worker.concurrency


def refuse(worker: Any, pool: str, autoscale: int) -> None:
    """Raise :class:`ConfigError` where an option of Celery would not do what its user means; ``worker``: Celery's."""
    if pool not in POOLS:
        raise ConfigError(
            f"-P {pool}: nodes run on prefork, solo or threads; for many that wait at a time write -P threads -c 100"
        )
    if worker.purge:
        raise ConfigError(
            "--purge would take Celery's tasks and leave the messages: end runs with `celerypipe cancel RUN` "
            "(`celerypipe status` lists them)"
        )
    if worker.options.get("beat"):
        raise ConfigError("-B: Celery schedules nothing here; start pipelines by cron or a timer of systemd")
    for option, value in (("--time-limit", worker.time_limit), ("--soft-time-limit", worker.soft_time_limit)):
        if value:
            raise ConfigError(
                f"{option} {value:g} would end a task of Celery, which works on many messages; "
                f'write "timeout": {value:g} in the node\'s "warp_configuration", or @node(timeout={value:g})'
            )
    if pool == "prefork":
        _require_locks()
    if autoscale and pool != "prefork":
        cure = "write -P prefork, or leave it out" if pool == "solo" else f"write -c {autoscale}"
        raise ConfigError(f"--autoscale: the {pool} pool cannot grow; {cure}")


def require_places(options: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigError` where a file of the command line cannot be written; Celery fills ``%n`` in."""
    for name in filter(options.get, ("logfile", "pidfile", "statedb")):
        path = Path(options[name])
        if "%" not in str(path.parent) and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            why = "it is a folder" if path.is_dir() else f"no file can be written in {str(path.parent)!r}"
            raise ConfigError(f"--{name} {path}: {why}")


def _require_locks() -> None:
    try:
        billiard.Lock()
    except (OSError, ImportError) as error:
        raise ConfigError(
            f"-P prefork: its processes share locks in /dev/shm, and none can be made there ({error}): mount it "
            "(mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm), or take another pool: -P threads, or worker_pool in "
            "the file of the queue"
        ) from None


def limits_of(worker: Any, pool: str) -> Limits:
    """Return how long a pool process works, by the options of Celery's ``worker``."""
    found = Limits(worker.max_tasks_per_child, worker.max_memory_per_child)
    for option, value in (("--max-tasks-per-child", found.messages), ("--max-memory-per-child", found.memory)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} {value}: give a number above 0, or leave it out")
        if value is not None and pool != "prefork":
            raise ConfigError(f"{option} {value}: the {pool} pool has no processes to replace; write -P prefork")
    return found


def bounds_of(pool: str, slots: int, seconds: float | bool) -> Bounds:
    """Return how long a process keeps nodes that nobody needs, and what it may take meanwhile.

    ``seconds``: as the file says; True: for ever. All processes together may take half of the machine's memory.
    """
    processes = slots if pool == "prefork" else 1
    return Bounds(math.inf if seconds is True else float(seconds), memory_here()[0] / 2 / max(1, processes))


def stuck_after(pool: str, option: float | None, written: float | bool | None) -> float | None:
    """Return after how many seconds a worker with a stuck node exits; None: it stays.

    ``option``: as :func:`exit_option` returns it; ``written``: that of the file. A solo
    worker exits unless it is told not to, since it can do nothing else; a worker of threads has others at work.
    """
    if pool == "prefork":
        return GRACE_ALONE  # the child exits, not the worker
    usual = GRACE_ALONE if pool == "solo" else GRACE_AMONG_OTHERS
    number = written if written is not None and not isinstance(written, bool) else usual
    if option is not None:
        return number if option == math.inf else option or None
    if written is None:
        return usual if pool == "solo" else None
    return number or None if written else None


def keeps_interrupted(pool: str, *, keep: bool, option: float | None, written: float | bool | None) -> bool:
    """Return whether a process stays in which a node was interrupted.

    ``keep``: so it was said; ``option`` and ``written``: as :func:`stuck_after`. A process of a pool is replaced; a
    solo worker ends only where it was said that it may, since then somebody starts it again.
    """
    said = bool(option) if option is not None else bool(written)
    return keep or (pool == "solo" and not said) or pool not in ("prefork", "solo")
