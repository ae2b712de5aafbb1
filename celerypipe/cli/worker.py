"""``celerypipe worker``: a thin door to ``celery -A celerypipe worker``."""

from __future__ import annotations

import sys

import click
from celery.bin.celery import main as celery_main

from celerypipe.cli.options import REDIS_OR_USUAL

#: What stands above Celery's own help.
HELP = """\
celerypipe worker [--redis URL] -Q QUEUE [OPTIONS]: the same as celery -A celerypipe worker.

  -Q gpu reads worker_configs/gpu.toml: which modules have the nodes, which pool, how many slots. -P and -c on the
  command line win over the file. --redis or -b says where Redis is, else CELERYPIPE_REDIS_URL, else CELERY_BROKER_URL,
  else redis://localhost:6379/0. prefork and solo can stop a message that exceeds its timeout, threads cannot.
  `celerypipe status` shows the worker and what it is busy with. SIGTERM lets it finish what it is at.

Celery's own options:
"""


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@REDIS_OR_USUAL
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def worker(redis: str | None, options: tuple[str, ...]) -> None:
    """Start a worker: `celerypipe worker -Q gpu`. All options of `celery worker` work.

    Exit status, as with `celery worker`: 0 it was told to end, 78 a file of worker_configs/, an address or a password
    is wrong.
    """
    if "--help" in options:
        click.echo(HELP)
    broker = ["-b", redis] if redis else []
    # Celery reads sys.argv again when it restarts itself (SIGHUP) or detaches.
    sys.argv = ["celery", "-A", "celerypipe", *broker, "worker", *options]
    sys.exit(celery_main())
