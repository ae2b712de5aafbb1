"""A worker boots: ``celery -A celerypipe worker -Q gpu`` becomes a worker of celerypipe here.

Celery's signals are the hooks: the files of its queues become settings, their modules' nodes become tasks, and its
presence tells the runners. Celery swallows what a signal handler raises, except ``SystemExit``: a worker that cannot
serve what it was told to ends with one line, instead of coming up empty.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
from celery import current_app, signals
from celery.app.trace import build_tracer
from celery.concurrency import get_implementation
from celery.utils.nodenames import nodename
from celery.utils.sysinfo import cpu_budget, is_auto_concurrency

from celerypipe import worker_config
from celerypipe.allocator import keep_large_blocks
from celerypipe.celery import app
from celerypipe.connection import Client, knock
from celerypipe.errors import ConfigError
from celerypipe.events import Patience
from celerypipe.flag import SharedFlag
from celerypipe.presence import PresenceKeeper, Record, remove_presence
from celerypipe.running import AtWork
from celerypipe.service import Service, presence_record
from celerypipe.settings import Settings, client_url, without_password
from celerypipe.shared_memory import Proof
from celerypipe.signing import Keyring
from celerypipe.task import Worker
from celerypipe.watchdog import Pulse, Watchdog

logger = logging.getLogger("celerypipe.worker")

#: The exit status of a worker whose configuration is wrong: starting it again would not help.
EX_CONFIG = 78
#: How a spawned pool child, a fresh interpreter, learns what its worker serves.
SPAWN_VARIABLE = "CELERYPIPE_WORKER"
#: Seconds the end of a worker waits for its presence to be removed.
LEAVE_SECONDS = 2.0

app.steps["worker"].add(Pulse)
app.steps["consumer"].add(Patience)


class Boot:
    """What this process knows of the worker it becomes; the handlers below fill it in, in the order of Celery."""

    def __init__(self) -> None:
        self.flag = SharedFlag()
        self.queues: tuple[str, ...] = ()
        self.configs: list[worker_config.WorkerConfig] = []
        self.service: Service | None = None
        self.worker: Worker | None = None
        self.keeper: PresenceKeeper | None = None
        self.watchdog: Watchdog | None = None
        self.proof: Proof | None = None
        self.keyring: Keyring | None = None
        keep_large_blocks()

    def shut_down(self) -> None:
        """Call activations back and take the presence away; safe inside a signal handler."""
        self.flag.raise_it()
        if self.keeper is not None:
            self.keeper.end()


boot = Boot()


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]  # celery ships no types
def read_configs(instance: Any, conf: Any, options: Mapping[str, Any], **_: Any) -> None:
    """First: before Celery settles pool, concurrency and log, the files of the queues decide them."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        settings = Settings.from_environment()
        boot.queues = tuple(_listed(options.get("queues")))
        boot.configs = _configs(boot.queues, settings.worker_configs)
        conf.update(_worker_settings(boot.queues, boot.configs[0], client_url(_broker(conf))))
        boot.service = Service(
            tuple(name for config in boot.configs for name in config.imports) + tuple(_listed(options.get("include"))),
            tuple(folder for config in boot.configs for folder in config.plugins) + settings.plugins,
        )
        boot.keyring = settings.keyring
        boot.service.load({name: config.path for config in boot.configs for name in config.imports})
        knock(client_url(_broker(conf)))
    except ConfigError as error:
        _refuse(error)
    for text in worker_config.overruled(boot.configs[0], boot.configs[1:]):
        sys.stderr.write(f"warning: {text}\n")
    if not _given("hostname", options):
        # Celery's celery@host is the same for every worker of a machine, and two of one name confuse each other.
        instance.hostname = nodename(f"{'-'.join(boot.queues)}.{os.getpid()}", socket.gethostname())


@signals.worker_init.connect  # type: ignore[untyped-decorator]  # celery ships no types
def settle(sender: Any, **_: Any) -> None:
    """Second: what Celery reads from its command line before any file is put right; the tasks are registered."""
    conf = sender.app.conf
    if not _given("pool", {"pool": None}):
        sender.pool_cls = conf.worker_pool
    sender.pool_cls = get_implementation(sender.pool_cls)
    if not _given("loglevel", {"loglevel": sender.loglevel}):
        sender.loglevel = logging.INFO
    if not _given("prefetch_multiplier", {}):
        sender.prefetch_multiplier = conf.worker_prefetch_multiplier
    # The worker's user types no flags: gossip and mingle are switched off here.
    sender.options.update(without_gossip=True, without_mingle=True)
    pool = _pool_name(sender.pool_cls)
    if pool == "solo":
        sender.concurrency = 1
    elif is_auto_concurrency(sender.concurrency):
        sender.concurrency = cpu_budget(use_cgroup_quota=pool == "prefork").count
    slots = max(sender.autoscale) if getattr(sender, "autoscale", None) else sender.concurrency
    boot.worker = Worker(
        redis_url=client_url(_broker(conf)),
        queues=boot.queues,
        host=socket.gethostname(),
        pool=pool,
        slots=slots,
        shutting_down=boot.flag.is_raised,
        keyring=boot.keyring,
    )
    if boot.service is not None:
        boot.service.register(sender.app, boot.worker)
        if pool == "prefork" and sender.pool_start_method == "spawn":
            os.environ[SPAWN_VARIABLE] = _for_spawned(boot.service, boot.worker, boot.flag.move_to_file())


@signals.after_setup_logger.connect  # type: ignore[untyped-decorator]  # celery ships no types
@signals.after_setup_task_logger.connect  # type: ignore[untyped-decorator]  # celery ships no types
def say_where(logger: logging.Logger, **_: Any) -> None:
    """Log lines, also those of nodes and libraries, carry run, node and message id."""
    for handler in logger.handlers:
        handler.addFilter(AtWork())


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]  # celery ships no types
def announce(sender: str, **_: Any) -> None:
    """Third: the log is set up; say what this worker is."""
    if boot.worker is None or boot.service is None:
        return
    files = ", ".join(str(config.path or f"no file for {config.queue}") for config in boot.configs)
    logger.info("%s: %s pool of %d by %s", sender, boot.worker.pool, boot.worker.slots, files)
    logger.info("Redis: %s", without_password(boot.worker.redis_url))
    if boot.keyring is not None:
        logger.info("messages are signed and verified; keys, by id: %s", ", ".join(boot.keyring.ids))
    logger.info("serving %d marks: %s", len(boot.service.entries), ", ".join(sorted(boot.service.entries)))


@signals.worker_ready.connect  # type: ignore[untyped-decorator]  # celery ships no types
def appear(sender: Any, **_: Any) -> None:
    """Fourth: the pool is up and the consumer listens; runners may ring. Sent again after every reconnect."""
    if boot.worker is None or boot.service is None or boot.keeper is not None:
        return
    record = presence_record(boot.worker, boot.service)
    if Settings.from_environment().shared_memory:
        boot.proof = Proof()
        record["shared"] = boot.proof.text

    def current() -> Record:
        return {**record, "slots": max(1, sender.pool.num_processes)}

    def withdraw(client: Client) -> None:
        boot.flag.raise_it()
        remove_presence(client, record["id"])

    boot.watchdog = Watchdog(sender.controller, withdraw)
    boot.keeper = PresenceKeeper(boot.worker.redis_url, current, boot.watchdog.look)
    boot.keeper.start()


@signals.task_received.connect  # type: ignore[untyped-decorator]  # celery ships no types
def hear(**_: Any) -> None:
    """Every time: the consumer is not deaf."""
    if boot.watchdog is not None:
        boot.watchdog.received()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]  # celery ships no types
def call_back(**_: Any) -> None:
    """At SIGTERM, SIGINT, SIGQUIT, inside the signal handler: activations come back, no new bells."""
    boot.shut_down()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]  # celery ships no types
def leave(**_: Any) -> None:
    """Last: the presence is gone, and so are the warm instances of this process."""
    boot.shut_down()
    if boot.keeper is not None:
        boot.keeper.join(LEAVE_SECONDS)
    if boot.proof is not None:
        boot.proof.remove()
    close_instances()


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]  # celery ships no types
def close_instances(**_: Any) -> None:
    """A process that served ends: its instances are destroyed."""
    if boot.worker is not None:
        boot.worker.close()


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]  # celery ships no types
def join_spawned(sender: Any, **_: Any) -> None:
    """In a pool child: a forked one inherited everything, a spawned one serves what its worker wrote down for it."""
    text = os.environ.get(SPAWN_VARIABLE)
    if boot.worker is not None or not text:
        return
    plan = json.loads(text)
    boot.flag = SharedFlag(plan["flag"])
    boot.worker = Worker(
        **{**plan["worker"], "queues": tuple(plan["worker"]["queues"])},
        shutting_down=boot.flag.is_raised,
        keyring=Settings.from_environment().keyring,
    )
    boot.service = Service(tuple(plan["imports"]), tuple(Path(folder) for folder in plan["plugins"]))
    boot.service.load({})
    # Celery pickled the application for this child, so it is not the one of celerypipe.celery here.
    boot.service.register(current_app, boot.worker)
    for name in boot.service.entries:
        task = current_app.tasks[name]
        task.__trace__ = build_tracer(name, task, current_app.loader, sender, app=current_app)


def _configs(queues: tuple[str, ...], folder: Path) -> list[worker_config.WorkerConfig]:
    if not queues:
        known = ", ".join(worker_config.known_queues(folder)) or f"none, {folder}/ has no <queue>.toml"
        raise ConfigError(f"a worker of celerypipe needs to know its queues: add -Q QUEUE (known here: {known})")
    return [worker_config.load(queue, folder) for queue in queues]


def _worker_settings(queues: tuple[str, ...], leader: worker_config.WorkerConfig, url: str) -> dict[str, Any]:
    shown = "-".join(queues).replace("%", "%%")
    line = f"%(asctime)s %(levelname)s [{shown}] %(at_work)s%(message)s"
    transport = {**app.conf.broker_transport_options, **leader.settings.get("broker_transport_options", {})}
    if url.startswith("unix://"):
        transport = {key: value for key, value in transport.items() if key != "socket_keepalive"}
    transport["client_name"] = f"celerypipe-worker-{'-'.join(queues)}".replace(" ", "_")
    lines = {"worker_log_format": line, "worker_task_log_format": line}
    return {**lines, **leader.settings, "broker_transport_options": transport}


def _for_spawned(service: Service, worker: Worker, flag: str) -> str:
    facts = {name: getattr(worker, name) for name in ("redis_url", "queues", "host", "pool", "slots")}
    plugins = [str(folder) for folder in service.plugins]
    return json.dumps({"worker": facts, "imports": service.imports, "plugins": plugins, "flag": flag})


def _broker(conf: Any) -> str:
    return str(conf.broker_url)


def _listed(value: Any) -> list[str]:
    return [item.strip() for item in (value.split(",") if isinstance(value, str) else value or ()) if item.strip()]


def _given(parameter: str, options: Mapping[str, Any]) -> bool:
    """Whether whoever started the worker decided this themselves: on the command line, or in the call."""
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(parameter) if context is not None else None
    if source is None:
        return options.get(parameter) is not None
    return source.name in ("COMMANDLINE", "ENVIRONMENT")


def _pool_name(pool: type) -> str:
    name = pool.__module__.rpartition(".")[2]
    return "threads" if name == "thread" else name


def _refuse(error: ConfigError) -> NoReturn:
    sys.stderr.write(f"celerypipe: {error}\n")
    raise SystemExit(EX_CONFIG) from None
