"""The Celery application that ``celery -A celerypipe`` finds, and the settings every process of ours agrees on.

Importing it reads the environment and connects to nothing. A worker adds what its ``worker_configs/<queue>.toml``
says (:mod:`celerypipe.worker.boot`, named here as a string so that only a worker loads it, and so is its log).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from celery import Celery
from celery.loaders.app import AppLoader
from click.core import ParameterSource

from celerypipe.celery.broker import kombu_form
from celerypipe.errors import ConfigError
from celerypipe.process import collector
from celerypipe.process.log import FORMATS, VARIABLE
from celerypipe.redis.address import DEFAULT_ADDRESS, Address
from celerypipe.redis.line import KEEP_ALIVE
from celerypipe.settings import BROKER_VARIABLE, RedisSettings

#: Every process agrees on these: runner, worker, Flower.
SHARED: dict[str, Any] = {
    # Bells and Flower's calls are JSON; a pickle would hand the worker to whoever reaches Redis.
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    # Results travel in reply streams; Celery's backend would cost 14 commands each.
    "task_ignore_result": True,
    "task_store_errors_even_if_ignored": False,
    # A bell may be lost (the runner rings again); a late ack would deliver it a second time while it is served.
    "task_acks_late": False,
    "task_track_started": False,
    "task_send_sent_event": False,
    "task_create_missing_queues": True,
    "broker_connection_retry_on_startup": True,
    # Celery's 100 tries end a worker that Redis left alone for long enough.
    "broker_connection_max_retries": None,
    # An answer that is an error (READONLY, OOM, MISCONF) ends a stock worker. It is no reason to: Redis may recover.
    "broker_channel_error_retry": True,
    "broker_transport_options": {
        # One list per queue, named like the queue, so that anyone can ask how long it is.
        "priority_steps": [0],
        # Each of its connections that went silent costs this much, one after the other.
        "socket_timeout": 2,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "socket_keepalive_options": KEEP_ALIVE,
        # kombu gives up a connection that was silent for a second more, so within 9 s: before the watchdog does.
        "health_check_interval": 4,
        "client_name": "celerypipe",
        # All channels of a process take theirs from one pool; kombu allows each channel ten.
        "max_connections": 1000,
    },
}

#: What a worker does unless its file says otherwise.
WORKER: dict[str, Any] = {
    # A bell taken ahead of time waits here while another worker is idle.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_disable_rate_limits": True,
    # Flower sees every activation.
    "worker_send_task_events": True,
    # Activations come back at once on shutdown; a node that does not gets this many seconds.
    "worker_soft_shutdown_timeout": 10.0,
    # Celery ends a pool child that needs 4 s to start; importing a model library takes longer.
    "worker_proc_alive_timeout": 300.0,
    # Asking the broker about quorum queues is for RabbitMQ.
    "worker_detect_quorum_queues": False,
}


#: An option of ``celery worker``; :mod:`celerypipe.worker.options` says what it means.
EXIT_WHEN_STUCK = click.Option(
    ["--exit-when-stuck"],
    is_flag=False,
    flag_value="usual",
    metavar="[SECONDS]",
    help="Exit with status 75 if a node still runs so many seconds after its timeout; 0: never.",
)
#: Another one, for who would rather have a warm model than a process without a trace of what was interrupted.
KEEP_INTERRUPTED = click.Option(
    ["--keep-interrupted"],
    is_flag=True,
    help="Keep a process in which a node was interrupted. Default: it is replaced.",
)


#: And how its log is written.
LOG_FORMAT = click.Option(
    ["--log-format"],
    type=click.Choice(FORMATS),
    help=f"How the log is written: Celery's lines, or a JSON object a line; else {VARIABLE}, else text.",
)


class Loader(AppLoader):  # type: ignore[misc]  # celery ships no types
    """What Celery reads settings by. Those of another project, named in the environment, are not ours."""

    def read_configuration(self, env: str = "") -> None:
        """Called for the module that ``CELERY_CONFIG_MODULE`` names."""

    def init_worker(self) -> None:
        """Import what a worker is made of; in the environment of its queues, if they have one that was built."""
        context = click.get_current_context(silent=True)
        if context is not None and context.params.get("queues"):
            entering = import_module("celerypipe.environments.entering")  # no other process of Celery's needs it
            entering.enter_built(context.params["queues"], _words(context.find_root()))
        with collector.aside():
            super().init_worker()


class Application(Celery):  # type: ignore[misc]  # celery ships no types
    """A Celery application that hears no variables of Celery's: they are there for every project on the machine.

    Celery itself looks at them again and again, before its own settings.
    """

    backend_cls = "disabled"

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Return a connection to consume by."""
        return super().connection_for_read(url or self.conf["broker_url"], **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """Return a connection to publish by."""
        return super().connection_for_write(url or self.conf["broker_url"], **options)

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        """Return a connection."""
        return self.connection_for_write(hostname, **options)

    def serve(self, address: Address) -> None:
        """Make an address the one that it connects to."""
        form = kombu_form(address)
        options = {**SHARED["broker_transport_options"], **form["transport_options"]}
        self.conf.update(broker_url=form["url"], broker_use_ssl=form["ssl"], broker_transport_options=options)


def make_app(environment: Mapping[str, str]) -> Application:
    """Return a Celery application for the Redis that the command line or the environment names.

    With a wrong address an import goes on: whoever connects complains. A command of Celery ends with one line.
    """
    app = Application(
        "celerypipe",
        loader="celerypipe.celery.application:Loader",
        include=["celerypipe.worker.boot"],
        amqp="celerypipe.celery.broker:Broker",
        events="celerypipe.celery.events:PatientEvents",
        log="celerypipe.worker.streams:StreamLog",
        fixups=(),  # a project of Django is another one, too
        set_as_current=False,
    )
    app.user_options["worker"].update((EXIT_WHEN_STUCK, KEEP_INTERRUPTED, LOG_FORMAT))
    app.conf.update(SHARED)
    app.conf.update(WORKER)
    address = DEFAULT_ADDRESS
    try:
        address = named_redis(environment).or_default
    except ConfigError as error:
        if _celery_command() is not None:
            sys.stderr.write(f"celerypipe: {error}\n")
            raise SystemExit(os.EX_CONFIG) from None
    app.serve(address)
    return app


def _words(celery: click.Context) -> list[str]:
    """Return what starts the worker of this command line once more, behind Python: by ours, which is sooner there."""
    sources = {name: celery.get_parameter_source(name) for name in celery.params}
    typed = {name for name, source in sources.items() if source is ParameterSource.COMMANDLINE}
    if typed - {"app", "broker"} or "worker" not in sys.argv:
        return ["-m", "celery", *sys.argv[1:]]
    broker = ["-b", celery.params["broker"]] if "broker" in typed else []
    return ["-m", "celerypipe", "worker", *broker, *sys.argv[sys.argv.index("worker") + 1 :]]


def named_redis(environment: Mapping[str, str]) -> RedisSettings:
    """Return where Redis is by the command line of Celery, else by the environment.

    Celery writes ``-b URL`` into ``CELERY_BROKER_URL``, and so it does with what it finds in ``BROKER_URL``.
    """
    command = _celery_command()
    if command is None or not command.params.get("broker"):
        return RedisSettings.find(None, environment)
    typed = command.get_parameter_source("broker") is ParameterSource.COMMANDLINE
    own = {name: value for name, value in environment.items() if name != BROKER_VARIABLE}
    return RedisSettings.find(command.params["broker"] if typed else None, own, option="-b")


def _celery_command() -> click.Context | None:
    """The command line of Celery, or of a worker of ours, if that runs."""
    context = click.get_current_context(silent=True)
    root = context.find_root() if context is not None else None
    return root if root is not None and "broker" in root.params else None


app = make_app(os.environ)
