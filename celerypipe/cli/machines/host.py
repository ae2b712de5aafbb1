"""``celerypipe host``: the process that stays up on a machine, and starts workers there for who asks it to."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from celerypipe.cli.options import LOG_FORMAT, REDIS_OR_USUAL
from celerypipe.embedded.guard import end_below, end_strangers, guarded
from celerypipe.host.allowed import Allowed, host_named
from celerypipe.process import log

FILE = Path("host.toml")


@click.command()
@click.option("--name", metavar="NAME", help="Its name. Default: `name` in its file, else that of this machine.")
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=FILE,
    show_default=True,
    help="The list of what it may start.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for the logs of its workers. Default: ~/.local/state/celerypipe/hosts/NAME.",
)
@click.option("--print-unit", is_flag=True, help="Print a systemd unit that runs this command, and exit.")
@click.option("--check", "only_check", is_flag=True, help="Read the file, say what it allows, and exit.")
@REDIS_OR_USUAL
@LOG_FORMAT
def host(
    name: str | None, path: Path, state: Path | None, print_unit: bool, only_check: bool, redis: str | None
) -> None:
    """Stay up on this machine, and start, watch and stop workers here for who asks: `celerypipe worker start`.

    What may be started is this machine's own list, host.toml: a table for each queue. Start it in the folder of your
    project, where worker_configs/ and tasks/ are. `celerypipe hosts` shows it, from any machine.

    \b
    [queues.gpu]
    most = 2       # workers at most
    devices = "gpus"  # each worker has one of the GPUs of this machine; only if you want that
    [restart]      # what happens when a worker dies: at most 3 starts within 60 s, then it is given up
    attempts = 3
    interval = 60
    delay = 1      # seconds before the first start; doubled with each further one
    mode = "fail"  # or "delay": wait until the interval is over, and go on

    Ctrl-C and SIGTERM stop its workers and then itself. If it dies, so do its workers, but for those that were started
    with --detach: it finds them again when it comes back.
    """
    allowed = Allowed.load(path)
    own = host_named(name, allowed)
    allowed.require_configs()
    if only_check:
        _say_what_it_allows(allowed)
        return
    if print_unit:
        from celerypipe.host.unit import unit

        click.echo(unit(own, path.absolute(), state), nl=False)
        return
    _run(own, allowed, state, redis)


def _say_what_it_allows(allowed: Allowed) -> None:
    from celerypipe.host.devices import devices_by_queue
    from celerypipe.host.machine import Gpus

    devices = devices_by_queue(allowed, Gpus().count, os.environ)
    for queue, most in allowed.startable.items():
        each = f", each with one GPU of {', '.join(devices[queue])}" if queue in devices else ""
        click.echo(f"{queue}: at most {most}{each}")


def _run(name: str, allowed: Allowed, state: Path | None, redis: str | None) -> None:
    from celerypipe.folders import path_of
    from celerypipe.host.launch import spared_in, state_folder
    from celerypipe.settings import RedisSettings, Settings

    settings = Settings.from_environment()
    address = RedisSettings.find(redis).or_default
    folder = path_of(state) if state is not None else state_folder(name, address.namespace)
    guarded(lambda: spared_in(folder))
    from celerypipe.host.host import HostLoop, HostSettings  # Celery, which the guard does without

    handler = logging.StreamHandler()
    layout = "[%(asctime)s: %(levelname)s] %(message)s"
    handler.setFormatter(log.JsonFormatter(f"host.{name}") if log.is_json() else logging.Formatter(layout))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("celerypipe").setLevel(logging.INFO)
    told = HostSettings(name, address, allowed, folder, settings)
    status = HostLoop(told, orphans=lambda own: end_strangers(own, lambda: spared_in(folder))).run()
    end_below(spared_in(folder))
    sys.stderr.flush()
    os._exit(status)  # threads of Celery's may still wait for Redis
