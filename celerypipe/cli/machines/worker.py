"""``celerypipe worker``: what ``celery -A celerypipe worker`` starts, sooner.

Celery's own command line imports each of its other commands and what is plugged into it (Flower, an interactive shell):
a third of a worker's boot, which none of them serves. ``Embedded`` starts its workers by this one.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from celerypipe.cli.options import REDIS_OR_USUAL
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
#: What is done on hosts, in the place of options.
OF_HOSTS = ("start", "stop", "drain", "restart", "scale", "ls")
#: As Celery's own command line has it above its commands.
BROKER = click.Option(["-b", "--broker"], hidden=True, allow_from_autoenv=False)


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
    options_metavar="[--redis URL]",
)
@REDIS_OR_USUAL
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="-Q QUEUE [OPTIONS]")
def worker(redis: str | None, options: tuple[str, ...]) -> None:
    """Start a worker: `celerypipe worker -Q gpu`. All options of `celery worker` work.

    Exit status, as with `celery worker`: 0 it was told to end; 1 or 75 a node hung, or it no longer heard its queue:
    start it again; 70 it failed while it started; 78 an option, a file of worker_configs/, an address or a password is
    wrong.
    """
    if options and options[0] in OF_HOSTS:
        group = import_module("celerypipe.cli.machines.workers").workers
        told = [*options, *(("--redis", redis) if redis else ())]
        group.main(told, prog_name="celerypipe worker", standalone_mode=False)
        return
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
