"""A worker boots: ``celery -A celerypipe worker -Q gpu`` becomes a worker of celerypipe here.

Celery's signals are the hooks: the files of its queues become settings, their modules' nodes become tasks, and its
presence tells the runners. Each phase of a worker's life makes what the next one needs, whole, and connects it to the
signals that it hears from then on: ``Configured``, ``Settled``, ``Present``. Celery swallows what a signal handler
raises, except ``SystemExit``: a worker that cannot serve what it was told to ends with one line, instead of coming up
empty.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial, wraps
from typing import Any

import click
import redis
from celery import current_app, signals
from celery.app.trace import build_tracer
from celery.utils.nodenames import nodename

from celerypipe.celery.application import app, named_redis
from celerypipe.celery.events import Patience
from celerypipe.celery.prefork import child_began, child_ended, is_retiring
from celerypipe.celery.start import Start, handlers_installed
from celerypipe.environments import entering
from celerypipe.errors import ConfigError
from celerypipe.mailbox import hints
from celerypipe.process import forks, log
from celerypipe.process.activity import Activity
from celerypipe.redis.connection import connect
from celerypipe.redis.secret import seen_in_ps
from celerypipe.settings import Settings
from celerypipe.worker import config as worker_config
from celerypipe.worker import control, group, preload, spawned
from celerypipe.worker.activation.place import Worker
from celerypipe.worker.activation.quota import Limits
from celerypipe.worker.allocator import keep_large_blocks
from celerypipe.worker.arrivals import Arrivals
from celerypipe.worker.configured import Configured
from celerypipe.worker.flag import SharedFlag
from celerypipe.worker.handlers import Handlers
from celerypipe.worker.options import (
    bounds_of,
    given,
    keeps_interrupted,
    limits_of,
    listed,
    put_right,
    require_places,
    stuck_after,
    unasked,
)
from celerypipe.worker.presence import Present
from celerypipe.worker.shutdown import Shutdown
from celerypipe.worker.watchdog import Pulse

logger = logging.getLogger("celerypipe.worker")

#: How a spawned pool child, a fresh interpreter, learns what its worker serves.
SPAWN_VARIABLE = "CELERYPIPE_WORKER"

app.steps["worker"].update({Start, Pulse})
app.steps["consumer"].add(Patience)
keep_large_blocks()
handlers = Handlers()


def say(level: int, text: str, plain: str) -> None:
    """Say something while there is no log yet; ``plain``: how, where the log is not JSON."""
    sys.stderr.write(f"{log.line(level, text, plain)}\n")


def ending(handler: Callable[..., None]) -> Callable[..., None]:
    """Make what a worker cannot do without end it, with the reason, where it fails: Celery would log that and go on."""

    @wraps(handler)
    def wrapped(*args: Any, **told: Any) -> None:
        try:
            handler(*args, **told)
        except ConfigError as error:
            say(logging.CRITICAL, str(error), f"celerypipe: {error}")
            raise SystemExit(os.EX_CONFIG) from None  # starting it again would not help
        except Exception:  # noqa: BLE001  # whatever it is, it is shown and ends this process
            text = f"this worker cannot boot, and ends:\n{traceback.format_exc().rstrip()}"
            say(logging.CRITICAL, text, f"celerypipe: {text}")
            raise SystemExit(os.EX_SOFTWARE) from None

    return wrapped


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]  # celery ships no types
@ending
def read_configs(instance: Any, conf: Any, options: Mapping[str, Any], **_: Any) -> None:
    """First: before Celery settles pool, concurrency and log, the files of the queues decide them."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if options.get("log_format"):
        os.environ[log.VARIABLE] = options["log_format"]
    if log.is_json():  # also what comes before Celery sets its log up, but for its banner
        instance.quiet = True
        logging.captureWarnings(True)
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(log.JsonFormatter())
    require_places(options)
    _enter_environment(listed(options.get("queues")))
    configured = Configured.read(conf, options)
    warnings = worker_config.overruled(configured.configs[0], configured.configs[1:])
    warnings += worker_config.absent_plugins(configured.configs, Settings.from_environment())
    warnings += [f"{configured.absence}; this worker waits for it"] if configured.absence else []
    for text in filter(None, [*warnings, seen_in_ps(sys.argv), *configured.redis.unheard, *unasked()]):
        say(logging.WARNING, text, f"warning: {text}")
    if not given("hostname", options):
        # Celery's celery@host is the same for every worker of a machine, and two of one name confuse each other.
        queues = "-".join(configured.queues).replace("@", "_")
        instance.hostname = nodename(f"{queues}.{os.getpid()}", socket.gethostname())
    signals.worker_init.connect(ending(partial(settle, configured)), weak=False)


def _enter_environment(queues: Sequence[str]) -> None:
    """Go on in the environment of these queues, if they have one; runs are told where it cannot be built."""
    try:
        wanted = entering.wanted_by_all(queues, Settings.from_environment().worker_configs)
        if wanted is None:
            return
        typed = click.get_current_context(silent=True) is not None
        words = ["-m", "celery", *sys.argv[1:]] if typed else []
        entering.enter(wanted, words, lambda text: say(logging.INFO, text, text))
    except ConfigError as error:
        with suppress(ConfigError, redis.RedisError, OSError):
            address = named_redis(os.environ).or_default
            with connect(address, name="celerypipe-boot", timeout=2.0) as client:
                hints.say_unbuilt(client, queues, socket.gethostname(), str(error))
        raise


def settle(configured: Configured, sender: Any, **_: Any) -> None:
    """Second: what Celery reads from its command line before any file is put right; the tasks are registered."""
    pool, slots = put_right(sender, configured.autoscale)
    settled = Settled(configured, pool, slots, limits_of(sender, pool))
    settled.connect()
    configured.served.register(sender.app, settled.worker)
    if settled.group is not None:
        sender.app.register_task(group.GroupTask(settled.worker, settled.group))
    if pool == "prefork" and sender.pool_start_method == "spawn":
        settled.arrivals.connect()
        # Without it billiard imports the project of Django that somebody's DJANGO_SETTINGS_MODULE names.
        os.environ.setdefault("DJANGO_PROJECT_DIR", os.getcwd())
        os.environ[SPAWN_VARIABLE] = spawned.written(configured.served, settled.worker, settled.flag.move_to_file())
    gc.freeze()  # what was imported stays: nobody looks at it again, and forks go on sharing its memory


class Settled:
    """A worker as its pool will serve it, and as it is withdrawn. ``present``: from when on runners know of it."""

    def __init__(self, configured: Configured, pool: str, slots: int, limits: Limits) -> None:
        self.configured = configured
        self.flag = SharedFlag()
        self.shutdown = Shutdown(self.flag)
        option, written = configured.exit_when_stuck, configured.configs[0].exit_when_stuck
        keep = configured.keep_interrupted
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
            deadlines=configured.heartbeat.deadlines,
            stuck_after=stuck_after(pool, option, written),
            keeps_interrupted=keeps_interrupted(pool, keep=keep, option=option, written=written),
            leave=self.leave if pool != "prefork" else None,
            keyring=configured.keyring,
            limits=limits,
            keep_warm=bounds_of(pool, slots, configured.configs[0].keep_warm),
            activity=Activity.asked_for(os.environ),
        )
        self.arrivals = Arrivals(configured.queues, self.worker.process)
        self.present: Present | None = None
        is_group = pool == "solo" and any(queue.startswith(group.QUEUE) for queue in configured.queues)
        self.group = group.NodeGroup(self.worker, configured.served.listings) if is_group else None

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
            signals.worker_process_init.connect(self.begin_child, weak=False)
        else:
            part(self.flag)

    def begin_child(self, **_: Any) -> None:
        """In each process of the pool, before its first message."""
        part(self.flag)
        preload.warm_in_child(self.worker, self.configured.preloads)

    def announce(self, sender: str, **_: Any) -> None:
        """Third: the log is set up; say what this worker is."""
        worker, served = self.worker, self.configured.served
        folder = Settings.from_environment().worker_configs
        files = [str(each.path or f"no {folder / each.queue}.toml: using defaults") for each in self.configured.configs]
        one, several = ("thread", "threads") if worker.pool == "threads" else ("process", "processes")
        slots = f"{worker.slots} {one if worker.slots == 1 else several}"
        logger.info("%s: %s (%s, %s)", sender, ", ".join(files), worker.pool, slots)
        logger.info("%s", self.configured.redis)
        if worker.keyring is not None:
            logger.info("messages are signed and verified; keys, by id: %s", ", ".join(worker.keyring.ids))
        logger.info("serving %d marks: %s", len(served.listings), ", ".join(sorted(served.listings)))
        for text in worker_config.unserved(self.configured.configs, Settings.from_environment(), own=served.has_own):
            logger.warning("%s", text)

    def take_over(self, sender: Any, **_: Any) -> None:
        """Fourth: Celery has installed its signal handlers; ours stand in their place, and so does what it is told.

        Whoever is to be warm before the first message is warmed here, where no processes of a pool do that.
        """
        control.install()
        told = {"sender": sender.hostname, "how": "Warm", "exitcode": os.EX_OK}
        self.shutdown.install(lambda name: signals.worker_shutting_down.send(sig=name, **told))
        if self.worker.pool != "prefork":
            preload.warm(self.worker, self.configured.preloads)

    def appear(self, sender: Any, **_: Any) -> None:
        """Fifth: the pool is up and the consumer listens; runners may ring. Sent again after every reconnect."""
        if self.present is not None:
            return
        self.present = Present(sender, self.worker, self.configured.served, self.flag, self.configured.heartbeat)
        self.present.connect()
        self.arrivals.tell(self.present.keeper.say)
        if os.environ.get(entering.ENTERED_VARIABLE):
            self.present.keeper.say(partial(hints.say_built, queues=self.configured.queues))

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
        if self.group is not None:
            self.group.close()
        self.worker.close()
        self.worker.files.remove()
        self.configured.heartbeat.end(last=True)


def part(flag: SharedFlag) -> None:
    """In a process that nodes run in: what they fork shares neither flag nor signal handlers with it."""
    forks.keep(flag)
    forks.keep(handlers)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]  # celery ships no types
@ending
def join_spawned(sender: Any, **_: Any) -> None:
    """In a spawned pool child, which inherits nothing: it serves what its worker wrote down for it."""
    text = os.environ.get(SPAWN_VARIABLE)
    if not text:
        return
    worker, served, flag = spawned.read(text)
    part(flag)
    signals.worker_process_shutdown.connect(lambda **_: worker.close(), weak=False)
    served.load({})
    preload.warm_in_child(worker, preload.preloads(os.environ, served.listings))
    # Celery pickled the application for this child, so it is not the one of celerypipe.celery here.
    served.register(current_app, worker)
    for name in served.listings:
        task = current_app.tasks[name]
        task.__trace__ = build_tracer(name, task, current_app.loader, sender, app=current_app)
