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
from celerypipe.errors import ConfigError
from celerypipe.settings import Settings

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
        _enter_environment(options)
    import_module("celerypipe.cli.machines.started").start(redis, options)


def _enter_environment(options: tuple[str, ...]) -> None:
    """Go on in the environment of its queues before anything else is imported, if it was built already.

    All that takes time or goes wrong about it is for the worker itself, which can tell of it.
    """
    try:
        wanted = entering.wanted_by_all(entering.queues_in(options), Settings.from_environment().worker_configs)
        if wanted is not None:
            entering.enter(wanted, ["-m", "celerypipe", *sys.argv[1:]], lambda _: None, build=False)
    except ConfigError:
        return
