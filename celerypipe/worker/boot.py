"""A worker boots: ``celery -A celerypipe worker -Q gpu`` becomes a worker of celerypipe here.

Celery's signals are the hooks: the files of its queues become settings, their modules' nodes become tasks, and its
presence tells the runners. Each phase of a worker's life makes what the next one needs, whole, and connects it to the
signals that it hears from then on: ``Configured``, ``Settled``, ``Present``. Celery swallows what a signal handler
raises, except ``SystemExit``: a worker that cannot serve what it was told to ends with one line, instead of coming up
empty.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from billiard.pool import EX_OK, EX_RECYCLE
from celery import current_app, signals
from celery.app.trace import build_tracer
from celery.concurrency import get_implementation
from celery.concurrency.prefork import TaskPool as StockPrefork
from celery.utils.log import get_multiprocessing_logger
from celery.utils.nodenames import nodename
from celery.utils.sysinfo import cpu_budget, is_auto_concurrency

from celerypipe import forks
from celerypipe.celery.application import app, named_redis
from celerypipe.celery.events import Patience
from celerypipe.celery.prefork import TaskPool, child_began, child_ended, is_retiring
from celerypipe.celery.request import refuse_packed_tasks
from celerypipe.celery.start import Start, handlers_installed
from celerypipe.errors import ConfigError
from celerypipe.heartbeat.heartbeat import Heartbeat
from celerypipe.mailbox.bell import bell_in, wrong_with
from celerypipe.mailbox.blob.shared_memory import Proof
from celerypipe.mailbox.deaths import Death, OutOfMemory, say_death
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.liveness import words
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.presence import Presence, remove_presence, removing_presence
from celerypipe.redis.connection import Client, knock
from celerypipe.redis.secret import seen_in_ps
from celerypipe.redis.signing import Keyring
from celerypipe.settings import RedisSettings, Settings
from celerypipe.worker import config as worker_config
from celerypipe.worker import spawned
from celerypipe.worker.activation.place import Worker
from celerypipe.worker.activation.quota import Limits
from celerypipe.worker.activation.running import AtWork
from celerypipe.worker.allocator import keep_large_blocks
from celerypipe.worker.flag import SharedFlag
from celerypipe.worker.handlers import Handlers
from celerypipe.worker.options import (
    autoscale_option,
    exit_option,
    given,
    limits_of,
    listed,
    refuse,
    stuck_after,
    unasked,
)
from celerypipe.worker.presence import PresenceKeeper
from celerypipe.worker.served import Served, presence_record, processes_of
from celerypipe.worker.shutdown import Shutdown
from celerypipe.worker.watchdog import Pulse, Watchdog

logger = logging.getLogger("celerypipe.worker")

#: How a spawned pool child, a fresh interpreter, learns what its worker serves.
SPAWN_VARIABLE = "CELERYPIPE_WORKER"
#: Seconds the end of a worker waits for its presence to be removed.
LEAVE_SECONDS = 2.0

app.steps["worker"].update({Start, Pulse})
app.steps["consumer"].add(Patience)
keep_large_blocks()
at_work = AtWork()
handlers = Handlers()


def ending(handler: Callable[..., None]) -> Callable[..., None]:
    """Make what a worker cannot do without end it, with the reason, where it fails: Celery would log that and go on."""

    @functools.wraps(handler)
    def wrapped(*args: Any, **told: Any) -> None:
        try:
            handler(*args, **told)
        except ConfigError as error:
            sys.stderr.write(f"celerypipe: {error}\n")
            raise SystemExit(os.EX_CONFIG) from None  # starting it again would not help
        except Exception:  # noqa: BLE001  # whatever it is, it is shown and ends this process
            sys.stderr.write(f"celerypipe: this worker cannot boot, and ends:\n{traceback.format_exc()}")
            raise SystemExit(os.EX_SOFTWARE) from None

    return wrapped


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]  # celery ships no types
@ending
def read_configs(instance: Any, conf: Any, options: Mapping[str, Any], **_: Any) -> None:
    """First: before Celery settles pool, concurrency and log, the files of the queues decide them."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    refuse_packed_tasks()
    configured = Configured.read(conf, options)
    warnings = worker_config.overruled(configured.configs[0], configured.configs[1:])
    for text in filter(None, [*warnings, seen_in_ps(sys.argv), *configured.redis.unheard, *unasked()]):
        sys.stderr.write(f"warning: {text}\n")
    if not given("hostname", options):
        # Celery's celery@host is the same for every worker of a machine, and two of one name confuse each other.
        queues = "-".join(configured.queues).replace("@", "_")
        instance.hostname = nodename(f"{queues}.{os.getpid()}", socket.gethostname())
    signals.worker_init.connect(ending(configured.settle), weak=False)


@dataclass(frozen=True)
class Configured:
    """What the command line, the environment and the files of its queues say of a worker."""

    queues: tuple[str, ...]
    redis: RedisSettings
    configs: Sequence[worker_config.WorkerConfig]
    served: Served
    exit_when_stuck: float | None
    autoscale: int
    #: Seconds that what is at work has once the worker is told to end.
    patience: float
    keyring: Keyring | None
    process: Process
    heartbeat: Heartbeat

    @classmethod
    def read(cls, conf: Any, options: Mapping[str, Any]) -> Configured:
        """Read all of it into Celery's settings too, import what is to be served, and see that Redis lets us in.

        The heartbeat begins before anything is imported that may hold the interpreter lock, or a GPU.
        """
        settings = Settings.from_environment()
        queues = tuple(listed(options.get("queues")))
        exit_when_stuck = exit_option(options.get("exit_when_stuck"))
        worker_config.require_folders(settings)
        configs = worker_config.load_all(queues, settings.worker_configs)
        redis = named_redis(os.environ)
        app.serve(redis.or_default)
        conf.update(worker_config.worker_settings(queues, configs[0], app.conf.broker_transport_options))
        served = Served(
            tuple(name for config in configs for name in config.imports) + tuple(listed(options.get("include"))),
            tuple(folder for config in configs for folder in config.plugins) + settings.plugins,
            settings.allowed,
        )
        process = Process(socket.gethostname(), os.getpid(), secrets.token_hex(4))
        names = redis.or_default.names
        said = words(names, process, removing_presence(names, str(process)))
        heartbeat = Heartbeat(redis.or_default, said, kin=True)
        heartbeat.start()
        served.load({name: config.path for config in configs for name in config.imports})
        knock(redis.or_default)
        autoscale = autoscale_option(options.get("autoscale"))
        return cls(
            queues,
            redis,
            configs,
            served,
            exit_when_stuck,
            autoscale,
            float(conf.worker_soft_shutdown_timeout),
            settings.keyring,
            process,
            heartbeat,
        )

    def settle(self, sender: Any, **_: Any) -> None:
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
        refuse(sender, pool, self.autoscale)
        limits = limits_of(sender, pool)
        if pool == "solo":
            sender.concurrency = 1
        elif is_auto_concurrency(sender.concurrency):
            sender.concurrency = cpu_budget(use_cgroup_quota=pool == "prefork").count
        slots = self.autoscale or sender.concurrency
        settled = Settled(self, pool, slots, limits)
        settled.connect()
        self.served.register(sender.app, settled.worker)
        if pool == "prefork" and sender.pool_start_method == "spawn":
            # Without it billiard imports the project of Django that somebody's DJANGO_SETTINGS_MODULE names.
            os.environ.setdefault("DJANGO_PROJECT_DIR", os.getcwd())
            os.environ[SPAWN_VARIABLE] = spawned.written(self.served, settled.worker, settled.flag.move_to_file())


class Settled:
    """A worker as its pool will serve it, and as it is withdrawn. ``present``: from when on runners know of it."""

    def __init__(self, configured: Configured, pool: str, slots: int, limits: Limits) -> None:
        self.configured = configured
        self.flag = SharedFlag()
        self.shutdown = Shutdown(self.flag)
        self.worker = Worker(
            redis=configured.redis.or_default,
            queues=configured.queues,
            host=configured.process.host,
            life=configured.process.life,
            pool=pool,
            slots=slots,
            shutting_down=self._is_to_end,
            urgent=self.flag.is_urgent,
            patience=configured.patience,
            stuck_after=stuck_after(pool, configured.exit_when_stuck, configured.configs[0].exit_when_stuck),
            leave=self.leave if pool != "prefork" else None,
            keyring=configured.keyring,
            limits=limits,
        )
        self.present: Present | None = None

    def _is_to_end(self) -> bool:
        return self.flag.is_raised() or is_retiring()

    def connect(self) -> None:
        """Hear the signals of its life; also in forked children, which inherit all of this."""
        heartbeat = self.configured.heartbeat
        child_began.connect(lambda pid, **_: heartbeat.watch(pid), weak=False)
        child_ended.connect(lambda pid, **_: heartbeat.forget(pid), weak=False)
        signals.celeryd_after_setup.connect(ending(self.announce), weak=False)
        handlers_installed.connect(ending(self.take_over), weak=False)
        signals.worker_ready.connect(ending(self.appear), weak=False)
        signals.worker_shutting_down.connect(self.call_back, weak=False)
        signals.worker_shutdown.connect(self.end, weak=False)
        signals.worker_process_shutdown.connect(lambda **_: self.worker.close(), weak=False)
        signals.worker_process_init.disconnect(join_spawned)  # whatever the environment says: they are forked
        if self.worker.pool == "prefork":  # its children share the flag with it, not with what their nodes fork
            signals.worker_process_init.connect(self.part, weak=False)
        else:
            self.part()

    def part(self, **_: Any) -> None:
        """In a process that nodes run in: what they fork shares neither flag nor signal handlers with it."""
        forks.keep(self.flag)
        forks.keep(handlers)

    def announce(self, sender: str, conf: Any, **_: Any) -> None:
        """Third: the log is set up; say what this worker is."""
        # In a spawned child billiard logs before anything of ours is there that knows the field.
        os.environ["_MP_FORK_LOGFORMAT_"] = conf.worker_log_format.replace("%(at_work)s", "")
        worker, served = self.worker, self.configured.served
        files = ", ".join(str(each.path or f"no file for {each.queue}") for each in self.configured.configs)
        logger.info("%s: %s pool of %d by %s", sender, worker.pool, worker.slots, files)
        logger.info("%s", self.configured.redis)
        if worker.keyring is not None:
            logger.info("messages are signed and verified; keys, by id: %s", ", ".join(worker.keyring.ids))
        logger.info("serving %d marks: %s", len(served.listings), ", ".join(sorted(served.listings)))

    def take_over(self, sender: Any, **_: Any) -> None:
        """Fourth: Celery has installed its signal handlers; ours stand in their place."""
        told = {"sender": sender.hostname, "how": "Warm", "exitcode": os.EX_OK}
        self.shutdown.install(lambda name: signals.worker_shutting_down.send(sig=name, **told))

    def appear(self, sender: Any, **_: Any) -> None:
        """Fifth: the pool is up and the consumer listens; runners may ring. Sent again after every reconnect."""
        if self.present is not None:
            return
        self.present = Present(sender, self.worker, self.configured.served, self.flag)
        self.present.connect()

    def call_back(self, **_: Any) -> None:
        """Told to end, inside the signal handler: activations come back, no new bells."""
        self.flag.raise_it()
        if self.present is not None:
            self.present.keeper.end()

    def leave(self, through: Callable[[], bool] | None = None) -> None:
        """Withdraw this worker; ``through``: a thread of it is stuck, and this tells when the others have ended."""
        self.call_back()
        if self.present is not None:
            self.present.leave(through)

    def end(self, **_: Any) -> None:
        """Last: the presence is gone, and so are the warm instances of this process."""
        self.leave()
        self.worker.close()
        self.worker.files.remove()
        self.configured.heartbeat.end(last=True)


class Present:
    """A worker that runners know of, for as long as its keeper says so; what happens to it is said there too."""

    def __init__(self, consumer: Any, worker: Worker, served: Served, flag: SharedFlag) -> None:
        record = presence_record(worker, served)
        self.proof: Proof | None = None
        if Settings.from_environment().shared_memory:
            self.proof = Proof()
            record["shared"] = self.proof.text

        def current() -> Presence:
            pool, scaler = consumer.pool, getattr(consumer.controller, "autoscaler", None)
            slots = scaler.max_concurrency if scaler is not None else pool.num_processes  # it grows with what is rung
            return {**record, "slots": max(1, slots), "processes": processes_of(pool)}

        def withdraw(client: Client) -> None:
            flag.raise_it()
            remove_presence(client, record["id"])

        self.worker = worker
        self.name = consumer.hostname
        self.out_of_memory = OutOfMemory()
        self.watchdog = Watchdog(consumer.controller, withdraw, worker.end_of_work)
        self.keeper = PresenceKeeper(worker.redis, current, self.watchdog.look, self.watchdog.see_off)

    def connect(self) -> None:
        """Say that it is there, and hear what happens."""
        child_ended.connect(self.say_how_it_died, weak=False)
        signals.task_received.connect(lambda **_: self.watchdog.received(), weak=False)
        signals.task_unknown.connect(self.leave_to_another, weak=False)
        self.keeper.start()

    def leave(self, through: Callable[[], bool] | None) -> None:
        """Wait until its presence is removed, and for the others of a process of which a thread is stuck."""
        self.keeper.join(LEAVE_SECONDS)
        if through is not None:
            self.watchdog.leave(through)
        if self.proof is not None:
            self.proof.remove()

    def say_how_it_died(self, pid: int, status: int, **_: Any) -> None:
        """Every time a pool process ends: what it was at work on may be its fault, and others wait for that."""
        place = str(self.worker.process(pid))
        death = Death(status, self.name, self.out_of_memory.happened(), told=status == EX_RECYCLE)
        if status not in (EX_OK, EX_RECYCLE):
            logger.error("process %d of this worker ended: %s", pid, death)
        self.keeper.say(lambda client: say_death(client, place, death))

    def leave_to_another(self, message: Any, **_: Any) -> None:
        """Every time a task names a mark that this worker does not know: another worker of the queue may."""
        arguments: Any = message.payload[0] if isinstance(message.payload, list | tuple) and message.payload else ()
        bell = bell_in(arguments) if isinstance(arguments, list) else None
        if bell is not None and not wrong_with(bell):
            mailbox = Mailbox(bell.run, bell.node, names=self.worker.names)
            self.keeper.say(lambda client: mailbox.unring(client, bell.slot, bell.token))


@signals.after_setup_logger.connect  # type: ignore[untyped-decorator]  # celery ships no types
@signals.after_setup_task_logger.connect  # type: ignore[untyped-decorator]  # celery ships no types
def say_where(logger: logging.Logger, **_: Any) -> None:
    """Log lines, also those of nodes, libraries and billiard, carry run, node and message id."""
    for handler in (*logger.handlers, *get_multiprocessing_logger().handlers):
        handler.addFilter(at_work)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]  # celery ships no types
@ending
def join_spawned(sender: Any, **_: Any) -> None:
    """In a spawned pool child, which inherits nothing: it serves what its worker wrote down for it."""
    text = os.environ.get(SPAWN_VARIABLE)
    if not text:
        return
    worker, served, flag = spawned.read(text)
    forks.keep(flag)
    forks.keep(handlers)
    signals.worker_process_shutdown.connect(lambda **_: worker.close(), weak=False)
    served.load({})
    # Celery pickled the application for this child, so it is not the one of celerypipe.celery here.
    served.register(current_app, worker)
    for name in served.listings:
        task = current_app.tasks[name]
        task.__trace__ = build_tracer(name, task, current_app.loader, sender, app=current_app)


def _pool_name(pool: type) -> str:
    name = pool.__module__.rpartition(".")[2]
    return "threads" if name == "thread" else name
