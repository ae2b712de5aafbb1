"""The Celery application that ``celery -A celerypipe`` finds, and the settings every process of ours agrees on.

Importing it reads the environment and connects to nothing. A worker adds what its ``worker_configs/<queue>.toml``
says (:mod:`celerypipe.worker.boot`, named here as a string so that only a worker loads it, and so is its log).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

import click
from celery import Celery

from celerypipe.errors import ConfigError
from celerypipe.redis.line import KEEP_ALIVE
from celerypipe.redis.url import DEFAULT_REDIS_URL, broker_url

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
    help="Exit, for a supervisor to start another, when a node goes on so long after its time; 0: stay.",
)


def make_app(environment: MutableMapping[str, str]) -> Celery:
    """Return a Celery application for the Redis that the environment names.

    ``celery -b URL`` arrives as ``CELERY_BROKER_URL`` and wins over ``CELERYPIPE_REDIS_URL``. A URL that is none of
    Redis is left as it is: whoever connects complains, an import does not.
    """
    given = environment.get("CELERY_BROKER_URL")
    if given:
        # Celery reads the variable itself, again and again, and knows no unix://.
        environment["CELERY_BROKER_URL"] = _as_broker_url(given)
    app = Celery(
        "celerypipe",
        include=["celerypipe.worker.boot"],
        amqp="celerypipe.celery.broker:Broker",
        events="celerypipe.celery.events:PatientEvents",
        log="celerypipe.worker.streams:StreamLog",
        set_as_current=False,
    )
    app.user_options["worker"].add(EXIT_WHEN_STUCK)
    app.conf.update(SHARED)
    app.conf.update(WORKER)
    app.conf.broker_url = _as_broker_url(given or environment.get("CELERYPIPE_REDIS_URL") or DEFAULT_REDIS_URL)
    return app


def _as_broker_url(url: str) -> str:
    try:
        return broker_url(url)
    except ConfigError:
        return url


app = make_app(os.environ)
