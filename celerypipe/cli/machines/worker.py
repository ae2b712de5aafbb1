"""``celerypipe worker``: what ``celery -A celerypipe worker`` starts, sooner.

Celery's own command line imports each of its other commands and what is plugged into it (Flower, an interactive shell):
a third of a worker's boot, which none of them serves. ``Embedded`` starts its workers by this one.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from celerypipe.cli.options import REDIS_OR_USUAL
from celerypipe.environments import entering

#: What is done on hosts, in the place of options.
OF_HOSTS = ("start", "stop", "drain", "restart", "scale", "ls")


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
    if "--help" not in options:
        entering.enter_built(entering.queues_in(options), ["-m", "celerypipe", *sys.argv[1:]])
    import_module("celerypipe.cli.machines.started").start(redis, options)
