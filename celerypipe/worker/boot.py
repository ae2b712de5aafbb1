"""A worker boots: ``celery -A celerypipe worker -Q gpu`` becomes a worker of celerypipe here.

Celery's signals are the hooks: the files of its queues become settings, their modules' nodes become tasks, and its
presence tells the runners. Celery swallows what a signal handler raises, except ``SystemExit``: a worker that cannot
serve what it was told to ends with one line, instead of coming up empty.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from billiard.pool import EX_OK, EX_RECYCLE
from celery import current_app, signals
from celery.app.trace import build_tracer
from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool as StockPrefork
from celery.utils.log import get_multiprocessing_logger
from celery.utils.nodenames import nodename
from celery.utils.sysinfo import cpu_budget, is_auto_concurrency

from celerypipe.celery.application import app
from celerypipe.celery.events import Patience
from celerypipe.celery.prefork import TaskPool, child_ended
from celerypipe.celery.request import refuse_packed_tasks
from celerypipe.errors import ConfigError
from celerypipe.mailbox.blob.shared_memory import Proof
from celerypipe.mailbox.deaths import Death, OutOfMemory, say_death
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.presence import Presence, remove_presence
from celerypipe.redis.connection import Client, knock
from celerypipe.redis.signing import Keyring
from celerypipe.redis.url import client_url, seen_in_ps, without_password
from celerypipe.settings import Settings
from celerypipe.worker import config as worker_config
from celerypipe.worker import spawned
from celerypipe.worker.activation.place import Worker
from celerypipe.worker.activation.running import AtWork
from celerypipe.worker.activation.task import is_bell
from celerypipe.worker.allocator import keep_large_blocks
from celerypipe.worker.flag import SharedFlag
from celerypipe.worker.options import exit_option, given, listed, stuck_after
from celerypipe.worker.presence import PresenceKeeper
from celerypipe.worker.served import Served, presence_record
from celerypipe.worker.watchdog import Pulse, Watchdog

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
        self.served: Served | None = None
        self.worker: Worker | None = None
        self.keeper: PresenceKeeper | None = None
        self.watchdog: Watchdog | None = None
        self.proof: Proof | None = None
        self.name = ""
        self.at_work = AtWork()
        self.exit_when_stuck: float | None = None
        self.out_of_memory = OutOfMemory()
        self.keyring: Keyring | None = None
        keep_large_blocks()

    def leave(self, through: Callable[[], bool] | None = None) -> None:
        """Withdraw this worker; ``through``: a thread of it is stuck, and this tells when the others have ended."""
        self.shut_down()
        if self.keeper is not None:
            self.keeper.join(LEAVE_SECONDS)
        if through is not None and self.watchdog is not None:
            self.watchdog.leave(through)
        if self.proof is not None:
            self.proof.remove()

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
    refuse_packed_tasks()
    try:
        settings = Settings.from_environment()
        boot.queues = tuple(listed(options.get("queues")))
        boot.exit_when_stuck = exit_option(options.get("exit_when_stuck"))
        worker_config.require_folders(settings)
        boot.configs = worker_config.load_all(boot.queues, settings.worker_configs)
        url, transport = client_url(_broker(conf)), app.conf.broker_transport_options
        conf.update(worker_config.worker_settings(boot.queues, boot.configs[0], url, transport))
        boot.served = Served(
            tuple(name for config in boot.configs for name in config.imports) + tuple(listed(options.get("include"))),
            tuple(folder for config in boot.configs for folder in config.plugins) + settings.plugins,
            settings.allowed,
        )
        boot.keyring = settings.keyring
        boot.served.load({name: config.path for config in boot.configs for name in config.imports})
        knock(client_url(_broker(conf)))
    except ConfigError as error:
        _refuse(error)
    warnings = worker_config.overruled(boot.configs[0], boot.configs[1:])
    for text in filter(None, [*warnings, *(seen_in_ps(word.removeprefix("--broker="), sys.argv) for word in sys.argv)]):
        sys.stderr.write(f"warning: {text}\n")
    if not given("hostname", options):
        # Celery's celery@host is the same for every worker of a machine, and two of one name confuse each other.
        instance.hostname = nodename(f"{'-'.join(boot.queues)}.{os.getpid()}", socket.gethostname())


@signals.worker_init.connect  # type: ignore[untyped-decorator]  # celery ships no types
def settle(sender: Any, **_: Any) -> None:
    """Second: what Celery reads from its command line before any file is put right; the tasks are registered."""
    conf = sender.app.conf
    if not given("pool", {"pool": None}):
        sender.pool_cls = conf.worker_pool
    sender.pool_cls = get_implementation(sender.pool_cls)
    if sender.pool_cls is StockPrefork:
        sender.pool_cls = TaskPool
    if not given("loglevel", {"loglevel": sender.loglevel}):
        sender.loglevel = logging.INFO
    if not given("prefetch_multiplier", {}):
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
        stuck_after=stuck_after(pool, boot.exit_when_stuck, boot.configs[0].exit_when_stuck),
        leave=boot.leave if pool != "prefork" else None,
        keyring=boot.keyring,
    )
    if boot.served is not None:
        boot.served.register(sender.app, boot.worker)
        if pool == "prefork" and sender.pool_start_method == "spawn":
            os.environ[SPAWN_VARIABLE] = spawned.written(boot.served, boot.worker, boot.flag.move_to_file())


@signals.after_setup_logger.connect  # type: ignore[untyped-decorator]  # celery ships no types
@signals.after_setup_task_logger.connect  # type: ignore[untyped-decorator]  # celery ships no types
def say_where(logger: logging.Logger, **_: Any) -> None:
    """Log lines, also those of nodes, libraries and billiard, carry run, node and message id."""
    for handler in (*logger.handlers, *get_multiprocessing_logger().handlers):
        handler.addFilter(boot.at_work)


@signals.celeryd_after_setup.connect  # type: ignore[untyped-decorator]  # celery ships no types
def announce(sender: str, **_: Any) -> None:
    """Third: the log is set up; say what this worker is."""
    if boot.worker is None or boot.served is None:
        return
    boot.name = sender
    files = ", ".join(str(config.path or f"no file for {config.queue}") for config in boot.configs)
    logger.info("%s: %s pool of %d by %s", sender, boot.worker.pool, boot.worker.slots, files)
    logger.info("Redis: %s", without_password(boot.worker.redis_url))
    if boot.keyring is not None:
        logger.info("messages are signed and verified; keys, by id: %s", ", ".join(boot.keyring.ids))
    logger.info("serving %d marks: %s", len(boot.served.listings), ", ".join(sorted(boot.served.listings)))


@signals.worker_ready.connect  # type: ignore[untyped-decorator]  # celery ships no types
def appear(sender: Any, **_: Any) -> None:
    """Fourth: the pool is up and the consumer listens; runners may ring. Sent again after every reconnect."""
    if boot.worker is None or boot.served is None or boot.keeper is not None:
        return
    record = presence_record(boot.worker, boot.served)
    if Settings.from_environment().shared_memory:
        boot.proof = Proof()
        record["shared"] = boot.proof.text

    def current() -> Presence:
        return {**record, "slots": max(1, sender.pool.num_processes), "processes": _processes(sender.pool)}

    def withdraw(client: Client) -> None:
        boot.flag.raise_it()
        remove_presence(client, record["id"])

    boot.watchdog = Watchdog(sender.controller, withdraw)
    boot.keeper = PresenceKeeper(boot.worker.redis_url, current, boot.watchdog.look)
    boot.keeper.start()


@child_ended.connect  # type: ignore[untyped-decorator]  # celery ships no types
def say_how_it_died(sender: Any, pid: int, status: int, **_: Any) -> None:
    """Every time a pool process ends: what it was at work on may be its fault, and others wait for that."""
    if boot.worker is None or boot.keeper is None:
        return
    place = str(boot.worker.process(pid))
    death = Death(status, boot.name, boot.out_of_memory.happened())
    if status not in (EX_OK, EX_RECYCLE):
        logger.error("process %d of this worker ended: %s", pid, death)
    boot.keeper.say(lambda client: say_death(client, place, death))


@signals.task_received.connect  # type: ignore[untyped-decorator]  # celery ships no types
def hear(**_: Any) -> None:
    """Every time: the consumer is not deaf."""
    if boot.watchdog is not None:
        boot.watchdog.received()


@signals.task_unknown.connect  # type: ignore[untyped-decorator]  # celery ships no types
def leave_to_another(message: Any, **_: Any) -> None:
    """Every time a task names a mark that this worker does not know: another worker of the queue may."""
    bell: Any = message.payload[0] if isinstance(message.payload, list | tuple) and message.payload else ()
    if boot.keeper is not None and is_bell(bell):
        run, node, slot, token = bell[:4]
        mailbox = Mailbox(str(run), str(node))
        boot.keeper.say(lambda client: mailbox.unring(client, slot, str(token)))


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]  # celery ships no types
def call_back(**_: Any) -> None:
    """At SIGTERM, SIGINT, SIGQUIT, inside the signal handler: activations come back, no new bells."""
    boot.shut_down()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]  # celery ships no types
def leave(**_: Any) -> None:
    """Last: the presence is gone, and so are the warm instances of this process."""
    boot.leave()
    close_instances()
    if boot.worker is not None:
        boot.worker.files.remove()


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
    boot.flag, boot.worker, boot.served = spawned.read(text)
    boot.served.load({})
    # Celery pickled the application for this child, so it is not the one of celerypipe.celery here.
    boot.served.register(current_app, boot.worker)
    for name in boot.served.listings:
        task = current_app.tasks[name]
        task.__trace__ = build_tracer(name, task, current_app.loader, sender, app=current_app)


def _broker(conf: Any) -> str:
    return str(conf.broker_url)


def _pool_name(pool: type) -> str:
    name = pool.__module__.rpartition(".")[2]
    return "threads" if name == "thread" else name


def _processes(pool: Any) -> list[int]:
    """The processes that activations run in: those of the pool, or this one. One that just starts has no number yet."""
    try:
        return [pid for pid in pool.info.get("processes", (os.getpid(),)) if pid]
    except (AttributeError, TypeError):  # the pool is being restarted
        return []


def _refuse(error: ConfigError) -> NoReturn:
    sys.stderr.write(f"celerypipe: {error}\n")
    raise SystemExit(EX_CONFIG) from None
