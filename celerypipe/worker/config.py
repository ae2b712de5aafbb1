"""How the workers of one queue run: ``worker_configs/<queue>.toml``, read and checked.

Its keys are Celery's own setting names (:mod:`celerypipe.worker.vocabulary`), besides ``OURS``. Modules and
relative plugin folders are seen from the folder the worker starts in.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery.concurrency import get_available_pool_names

from celerypipe.catalogue.plugin import absence
from celerypipe.contract.programs import Programs, programs_in
from celerypipe.definition.names import GROUP, environment_of, wrong_queue
from celerypipe.environments import wanted
from celerypipe.errors import ConfigError, did_you_mean
from celerypipe.folders import path_of
from celerypipe.process.log import LAYOUT, AtWork
from celerypipe.settings import Settings
from celerypipe.worker.vocabulary import KNOWN, REFUSED, TAKEN

#: What of ``broker_transport_options`` says where things are: runners would look elsewhere.
PLACES = ("global_keyprefix", "sep", "priority_steps", "master_name", "sentinel_kwargs", "credential_provider")

#: What lines of a log may be, as it is told; Python knows other words for some.
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

#: Numbers with which a worker would start and be of no use where they are 0.
ABOVE_ZERO = ("worker_proc_alive_timeout", "broker_connection_timeout", "worker_max_tasks_per_child")

#: Seconds that a node stays loaded that no message needs, where a file says nothing.
KEEP_WARM = 3600.0

#: The keys that are not Celery's, and what they mean.
OURS = {
    "imports": "modules whose nodes the workers serve",
    "plugins": "folders with nodes in juturna's layout",
    "environment": "a table: what the workers of this queue run with, in an environment of its own",
    "environments": "tables by name: those that nodes ask for",
    "exit_when_stuck": "true, false or seconds: exit if a node goes on so long after its time and nothing ends it",
    "keep_interrupted": "true: keep a process in which a node was interrupted",
    "programs": "tables by name: what nodes `program` may run, see [programs](../worker_configs/README.md#programs)",
    "keep_warm": "seconds that a node stays loaded that no message needs; true: for ever (default: 3600)",
}

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "string": ((str,), "text"),
    "str": ((str,), "text"),
    "dict": ((dict,), "a table"),
    "list": ((list,), "a list"),
    "tuple": ((list,), "a list"),
}


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One queue's file. ``path`` is None when the queue has none and runs by the defaults."""

    queue: str
    path: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    imports: tuple[str, ...] = ()
    plugins: tuple[Path, ...] = ()
    #: Whether the worker exits if a node is stuck; a number: after so many seconds. None: the file says nothing.
    exit_when_stuck: float | bool | None = None
    #: Whether a process stays in which a node was interrupted.
    keep_interrupted: bool = False
    #: What nodes `program` may run.
    programs: Programs = field(default_factory=dict)
    #: Seconds that a node stays loaded that no message needs; True: for ever.
    keep_warm: float | bool = KEEP_WARM


def known_queues(folder: Path) -> list[str]:
    """Return the queues that have a file in the folder."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load(queue: str, folder: Path) -> WorkerConfig:
    """Read one queue's file; without a file, its only import is ``tasks/<queue>.py``, if there is one.

    A worker in an environment runs by the file of the queue that its own is named after.
    """
    named = environment_of(queue)[0]
    path = folder / f"{named}.toml"
    if not os.path.lexists(path):
        has_module = named.isidentifier() and Path("tasks", f"{named}.py").is_file()
        return WorkerConfig(queue, imports=(f"tasks.{named}",) if has_module else ())
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    wanted.listed(content, path, text)
    for key, value in content.items():
        complaint = _complaint(key, value)
        if complaint:
            raise ConfigError(f"{path}:{_line_of(key, text)}: {complaint}")
    programs = {}
    for place, complaint, program in programs_in(content, Path.cwd()):
        if program is None:
            raise ConfigError(f"{path}:{_line_of(place, text)}: {complaint}")
        programs[program.name] = program
    return WorkerConfig(
        queue,
        path,
        {key: value for key, value in content.items() if key not in OURS},
        tuple(content.get("imports", ())),
        tuple(path_of(folder) for folder in content.get("plugins", ())),
        content.get("exit_when_stuck"),
        content.get("keep_interrupted", False),
        programs,
        content.get("keep_warm", KEEP_WARM),
    )


def overruled(leader: WorkerConfig, others: Iterable[WorkerConfig]) -> list[str]:
    """Say which settings of further queues a worker ignores, because one worker has one pool and one leader."""
    texts = []
    for other in others:
        ignored = [
            f"{key} = {value!r}" for key, value in other.settings.items() if leader.settings.get(key, None) != value
        ]
        if ignored:
            texts.append(
                f"{other.path}: ignored in this worker, which runs by the settings of its first queue "
                f"{leader.queue!r}: {', '.join(ignored)}; to use them, start one with -Q {shlex.quote(other.queue)}"
            )
    return texts


def _complaint(key: str, value: Any) -> str:
    if key in REFUSED:
        return f"{key!r} is not decided here; {REFUSED[key]}"
    if key in ("imports", "plugins"):
        fine = isinstance(value, list) and all(isinstance(item, str) for item in value)
        return "" if fine else f"{key!r} must be a list of texts, not {value!r}"
    if key == "exit_when_stuck":
        fine = isinstance(value, bool) or (isinstance(value, (int, float)) and value > 0)
        return "" if fine else f"{key!r} must be true, false or a number of seconds above 0, not {value!r}"
    if key in ("environment", "environments", "programs"):
        return ""  # they are read as a whole
    if key == "keep_warm":
        fine = value is True or (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0)
        return "" if fine else f"{key!r} must be true or a number of seconds, not {value!r}"
    if key == "keep_interrupted":
        return "" if isinstance(value, bool) else f"{key!r} must be true or false, not {value!r}"
    if key not in TAKEN or key not in KNOWN:
        return f"unknown setting {key!r}{did_you_mean(key, [*TAKEN, *OURS])}"
    if key == "worker_pool":
        pools = get_available_pool_names()
        return "" if value in pools or ":" in str(value) else f"unknown pool {value!r}{did_you_mean(str(value), pools)}"
    if key == "worker_concurrency":
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        return "" if whole or value == "auto" else f"{key!r} must be a whole number above 0 or 'auto', not {value!r}"
    if key == "broker_transport_options" and isinstance(value, dict) and (places := value.keys() & set(PLACES)):
        return f"{min(places)!r} in {key!r} is not decided here; runners would look in another place"
    wanted, name = _TYPES.get(KNOWN[key].type, ((object,), ""))
    if isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool)):
        return _unfit(key, value)
    return f"{key!r} must be {name}, not {value!r}"


def _unfit(key: str, value: Any) -> str:
    """What Celery would only find when the worker starts, at each line of its log, or not at all."""
    if isinstance(value, (int, float)) and (value < 0 or (key in ABOVE_ZERO and value == 0)):
        least = "above 0" if key in ABOVE_ZERO else "0 or more"
        return f"{key!r} must be {least}, not {value!r}; leave it out for what is usual"
    if key in ("worker_log_format", "worker_task_log_format"):
        record = logging.LogRecord("celery", logging.INFO, "", 0, "text", None, None)
        AtWork().filter(record)
        if key == "worker_task_log_format":
            record.task_id = record.task_name = ""
        try:
            logging.Formatter(value).format(record)
        except (TypeError, ValueError) as error:
            return f"{key!r} is no layout of a line: {error}"
    if key == "worker_redirect_stdouts_level" and not isinstance(logging.getLevelName(value.upper()), int):
        return f"{key!r} must be one of {', '.join(LEVELS)}, not {value!r}"
    if key == "worker_state_db" and not os.access(Path(value).parent, os.W_OK):
        return f"{key!r}: no file can be written in {str(Path(value).parent)!r}"
    return ""


def _line_of(key: str, text: str) -> int:
    match = re.search(rf"""^\s*\[?\s*["']?{re.escape(key)}["']?\s*[=.\]]""", text, re.MULTILINE)
    return text.count("\n", 0, match.start() + match.group().index(key)) + 1 if match else 1


def absent_plugins(configs: Iterable[WorkerConfig], settings: Settings) -> list[str]:
    """Say which plugin folders are not there, and who names them; a runner says it of its own in the same words."""
    named = [(f"{config.path}: plugins", folder) for config in configs for folder in config.plugins]
    named += [("CELERYPIPE_PLUGINS", folder) for folder in settings.plugins]
    return [f"{where}: {text}" for where, folder in named if (text := absence(folder))]


def unserved(configs: Sequence[WorkerConfig], settings: Settings, *, own: bool) -> list[str]:
    """Say of which queues nothing is served but what is built in: a slip of the pen, or another folder.

    ``own``: the worker serves something of its own, and then another queue may be meant for the same nodes.
    """
    folder, known = settings.worker_configs, {path.stem for path in Path("tasks").glob("[!_]*.py")}
    known.update(known_queues(folder))
    texts = []
    for config in configs:
        if config.queue.startswith(GROUP):
            continue
        queue = environment_of(config.queue)[0]
        file = f"{folder}/{queue}.toml"
        near = did_you_mean(queue, known - {queue})
        if own and (config.path is not None or config.imports or not near):
            continue
        why = f"there is no {file} and no tasks/{queue}.py in {Path.cwd()}"
        if config.path is not None:
            why = f"{file} names no module or plugin folder that has nodes for a worker"
        cure = f"start it in the folder of your project, or name a module: -I MODULE, or imports = [...] in {file}"
        start = f"{near} Or " if near else "; "
        texts.append(f"nothing is served of queue {queue!r} itself, only what is built in: {why}{start}{cure}")
    return texts


def load_all(queues: Sequence[str], folder: Path) -> list[WorkerConfig]:
    """Read the files of a worker's queues; :class:`ConfigError` without a queue.

    A folder that somebody named is there: without its files a worker would run by the defaults, and nobody know.
    """
    if folder != Settings().worker_configs and not folder.is_dir():
        raise ConfigError(f"CELERYPIPE_WORKER_CONFIGS: there is no folder {str(folder)!r}")
    if not queues:
        known = ", ".join(known_queues(folder)) or f"none, {folder}/ has no <queue>.toml"
        raise ConfigError(f"a worker of celerypipe needs to know its queues: add -Q QUEUE (known here: {known})")
    for queue in queues:
        if complaint := wrong_queue(queue):
            raise ConfigError(f"-Q: {complaint}")
    return [load(queue, folder) for queue in queues]


def worker_settings(queues: Sequence[str], leader: WorkerConfig, transport: Mapping[str, Any]) -> dict[str, Any]:
    """Return Celery's settings for a worker of these queues, led by the file of the first.

    ``transport``: the options that the way to the broker has anyway.
    """
    own = leader.settings.get("broker_transport_options", {})
    options = {**transport, **own}
    # Redis takes only these letters for it.
    options["client_name"] = re.sub(r"[^!-~]", "_", f"celerypipe-worker-{'-'.join(queues)}")
    lines = {"worker_log_format": LAYOUT, "worker_task_log_format": LAYOUT}
    return {**lines, **leader.settings, "broker_transport_options": options}
