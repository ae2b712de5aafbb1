"""``celery worker`` as ``celerypipe worker`` starts it: without what Celery's own command line imports besides."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from celerypipe.process.absent import absent

# A seventh of a worker's boot: colours of answers that no worker prints, and YAML, which no task of ours is written in.
with absent("pygments"), absent("yaml"):
    from celery.bin.base import CLIContext
    from celery.bin.worker import worker as celery_worker

    from celerypipe.celery.application import app

#: What stands above Celery's own help.
HELP = """\
celerypipe worker [--redis URL] -Q QUEUE [OPTIONS]: the same as celery -A celerypipe worker, and starts sooner.

  -Q gpu reads worker_configs/gpu.toml: the modules with nodes, the pool, the number of slots. -P and -c on the command
  line come before the file. --redis or -b is the address of Redis; default: CELERYPIPE_REDIS_URL, then
  CELERY_BROKER_URL, then redis://localhost:6379/0. Prefork and solo workers can stop a message at its timeout, threads
  workers cannot. `celerypipe status` shows the worker and what it is doing. SIGTERM lets it finish its messages.

  celerypipe worker start | stop | drain | restart | scale | ls: workers that hosts keep, on any machine; each has a
  --help of its own, and `celerypipe hosts` shows the hosts.

Celery's own options:
"""
#: As Celery's own command line has it above its commands.
BROKER = click.Option(["-b", "--broker"], hidden=True, allow_from_autoenv=False)


def start(redis: str | None, options: Sequence[str]) -> None:
    """Be a worker, with these options of Celery's."""
    if "--help" in options:
        click.echo(HELP)
    broker = ["-b", redis] if redis else []
    # Celery reads sys.argv again when it detaches.
    sys.argv = ["celery", "-A", "celerypipe", *broker, "worker", *options]
    celery_worker.params += [BROKER, *app.user_options["worker"]]
    celery_worker.main(
        [*broker, *options],
        prog_name="celerypipe worker",
        obj=CLIContext(app=app, no_color=bool(os.environ.get("NO_COLOR")), workdir=None),
        auto_envvar_prefix="CELERY_WORKER",
    )
