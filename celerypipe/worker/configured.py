"""What the command line, the environment and the files of its queues say of a worker, as one frozen value."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from celerypipe.celery.application import app, named_redis
from celerypipe.heartbeat.deadlines import Deadlines
from celerypipe.heartbeat.descendants import NOTHING_STAYS
from celerypipe.heartbeat.heartbeat import Heartbeat
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.liveness import words
from celerypipe.mailbox.logs import shipping
from celerypipe.mailbox.presence import removing_presence
from celerypipe.redis.connection import knock
from celerypipe.redis.signing import Keyring
from celerypipe.settings import HOST_VARIABLE, RedisSettings, Settings
from celerypipe.worker import config as worker_config
from celerypipe.worker import logs
from celerypipe.worker.options import autoscale_option, exit_option, listed
from celerypipe.worker.preload import Preload, preloads
from celerypipe.worker.served import Served

#: Seconds that what is at work has in a worker of a host that is told to end by SIGTERM.
DRAINING = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Configured:
    """A worker as it was asked for. ``patience``: seconds that what is at work has once the worker is told to end."""

    queues: tuple[str, ...]
    redis: RedisSettings
    configs: Sequence[worker_config.WorkerConfig]
    served: Served
    exit_when_stuck: float | None
    autoscale: int
    keep_interrupted: bool
    patience: float
    keyring: Keyring | None
    process: Process
    heartbeat: Heartbeat
    #: What is to be warm before the first message.
    preloads: list[Preload]
    #: That Redis is not there yet, and what to do about it; empty: it is.
    absence: str

    @classmethod
    def read(cls, conf: Any, options: Mapping[str, Any]) -> Configured:
        """Read all of it into Celery's settings too, see that Redis lets us in, and import what is to be served.

        The heartbeat begins before anything is imported that may hold the interpreter lock, or a GPU.
        """
        settings = Settings.from_environment()
        queues = tuple(listed(options.get("queues")))
        exit_when_stuck = exit_option(options.get("exit_when_stuck"))
        configs = worker_config.load_all(queues, settings.worker_configs)
        redis = named_redis(os.environ)
        app.serve(redis.or_default)
        absence = knock(redis.or_default, "--broker")  # before the heartbeat, which would say it in a second line
        conf.update(worker_config.worker_settings(queues, configs[0], app.conf.broker_transport_options))
        served = Served(
            tuple(name for config in configs for name in config.imports) + tuple(listed(options.get("include"))),
            tuple(folder for config in configs for folder in config.plugins) + settings.plugins,
            settings.allowed,
            {name: program for config in reversed(configs) for name, program in config.programs.items()},
        )
        process = Process(socket.gethostname(), os.getpid(), secrets.token_hex(4))
        names = redis.or_default.names
        said = words(names, process, removing_presence(names, str(process), queues))
        lines = shipping(names, process, settings.keyring, logs.outlet.open(redis.or_default.password))
        ends: Literal["session", "all"] = "all" if NOTHING_STAYS in os.environ else "session"
        heartbeat = Heartbeat(redis.or_default, said, descendants=ends, deadlines=Deadlines.make(), lines=lines)
        heartbeat.start()
        served.load({name: config.path for config in configs for name in config.imports})
        autoscale = autoscale_option(options.get("autoscale"))
        keep = bool(options.get("keep_interrupted")) or configs[0].keep_interrupted
        return cls(
            queues,
            redis,
            configs,
            served,
            exit_when_stuck,
            autoscale,
            keep,
            # Its host ends it otherwise where what is at work is not to be waited for.
            DRAINING if os.environ.get(HOST_VARIABLE) else float(conf.worker_soft_shutdown_timeout),
            settings.keyring,
            process,
            heartbeat,
            preloads(os.environ, served.listings),
            absence,
        )
