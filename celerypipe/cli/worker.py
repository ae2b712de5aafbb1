"""``celerypipe worker``: a thin door to ``celery -A celerypipe worker``."""

from __future__ import annotations

import sys

import click
from celery.bin.celery import main as celery_main


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.option("--redis", metavar="URL", help="Where Redis is; else CELERYPIPE_REDIS_URL.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def worker(redis: str | None, options: tuple[str, ...]) -> None:
    """Start a worker: `celerypipe worker -Q gpu`. All options of `celery worker` work.

    Exit status, as with `celery worker`: 0 it was told to end, 78 a file of worker_configs/, an address or a password
    is wrong.
    """
    broker = ["-b", redis] if redis else []
    # Celery reads sys.argv again when it restarts itself (SIGHUP) or detaches.
    sys.argv = ["celery", "-A", "celerypipe", *broker, "worker", *options]
    sys.exit(celery_main())
