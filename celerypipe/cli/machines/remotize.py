"""``celerypipe remotize``: a worker of one node, which it has warm; juturna's command, with a queue for a port."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.cli.machines.worker import worker
from celerypipe.cli.options import REDIS_OR_USUAL
from celerypipe.definition.names import wrong_name, wrong_queue
from celerypipe.environments import entering
from celerypipe.environments.requirements import lines_of
from celerypipe.environments.wanted import ISOLATED_VARIABLE, Environment
from celerypipe.errors import ConfigError
from celerypipe.folders import path_of
from celerypipe.worker import preload
from celerypipe.worker.served import ONLY


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--node-name", "-n", metavar="NAME", required=True, help="The node's name, for logs and `status`.")
@click.option("--node-mark", "-m", metavar="MARK", required=True, help="The mark of the node.")
@click.option(
    "--plugins-dir",
    "--plugin-dir",
    "-P",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="The folder with plugin nodes. Without it: a node that is installed or built in, or a dotted mark.",
)
@click.option("--pipe-name", "-N", metavar="NAME", default="warped_node", help="The pipeline's name, for logs.")
@click.option("--queue", "-Q", metavar="QUEUE", help="The queue that pipelines name in the node's warp_configuration.")
@click.option("--port", "-p", hidden=True)
@click.option(
    "--default-config",
    "-c",
    "configuration",
    metavar="JSON|FILE",
    default="{}",
    show_default=True,
    help="The configuration that is warm before the first message: JSON, or a file with JSON.",
)
@click.option("--max-workers", "-w", type=click.IntRange(1), help="Messages at the same time: processes or threads.")
@click.option("--pool", metavar="POOL", help="solo, prefork or threads. Default: solo; with --max-workers threads.")
@click.option("--isolate", is_flag=True, help="Run it in an environment of its own, built from its requirements.txt.")
@REDIS_OR_USUAL
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTION OF celery worker]...")
@click.pass_context
def remotize(
    context: click.Context,
    node_name: str,
    node_mark: str,
    folder: Path | None,
    pipe_name: str,
    queue: str | None,
    port: str | None,
    configuration: str,
    max_workers: int | None,
    pool: str | None,
    isolate: bool,
    redis: str | None,
    options: tuple[str, ...],
) -> None:
    """Start a worker that serves exactly one node, warm before the first message.

    Any number of pipelines may use it: each names the queue in the node's `warp_configuration`, and says its own
    `configuration`. One that says the same as --default-config gets the node that is warm; another one gets its own,
    warmed up with its first message. What a pipeline leaves out is as the node's class has it. Stateful nodes are
    separate in each run.

    With --isolate the node gets what the requirements.txt in its folder asks for, else the one in the plugin folder; of
    a dotted mark the one in the current folder. It is built once (`celerypipe environments`).

    Ctrl-C and SIGTERM end it, after the messages that it has in hand.
    """
    if port is not None:
        raise click.UsageError(
            f"there are no ports here: worker and pipeline meet in Redis, at a queue. In place of --port {port}: "
            '--queue remote, and in the pipeline "warp_configuration": {"queue": "remote"}'
        )
    if not queue:
        raise click.UsageError("Missing option '--queue' / '-Q': a name, such as remote, that pipelines use, too")
    for option, complaint in (
        ("--queue", wrong_queue(queue)),
        ("--node-name", wrong_name(node_name)),
        ("--pipe-name", wrong_name(pipe_name)),
    ):
        if complaint:
            raise click.BadParameter(complaint, param_hint=option)
    given = _configuration(configuration)
    if isolate:
        _enter_environment(node_mark, folder)
    _require(node_mark, folder, given)
    if folder is not None:
        known = os.environ.get("CELERYPIPE_PLUGINS")
        os.environ["CELERYPIPE_PLUGINS"] = os.pathsep.join(filter(None, [str(path_of(folder).absolute()), known]))
    os.environ[ONLY] = node_mark
    os.environ[preload.VARIABLE] = json.dumps([[node_mark, given]])
    click.echo(f"serving node {node_name} ({node_mark}) of {pipe_name} on queue {queue}", err=True)
    told = ["-Q", queue, "-P", pool or ("threads" if max_workers else "solo"), *options]
    if max_workers:
        told += ["-c", str(max_workers)]
    context.invoke(worker, redis=redis, options=tuple(told))


def _enter_environment(mark: str, folder: Path | None) -> None:
    """Go on in an environment of the node's own: nothing of it is imported before."""
    here = path_of(folder) if folder is not None else Path()
    known = Catalogue([here] if folder is not None else [])
    plugin = known.plugin(mark, "proc") or known.plugin(mark, "sink")
    own = plugin.requirements if plugin is not None else None
    places = [*([own] if own is not None else []), here / "requirements.txt"]
    file = next((each for each in places if each.is_file()), None)
    if file is None:
        homes = [*([plugin.home] if plugin is not None else []), here.absolute()]
        raise ConfigError(f"--isolate: there is no requirements.txt in {' or '.join(map(str, homes))}; write one there")
    os.environ[ISOLATED_VARIABLE] = str(file.absolute())
    wanted = Environment(mark, lines_of(file.absolute()), None, str(file.absolute()))
    entering.enter(wanted, ["-m", "celerypipe", *sys.argv[1:]], lambda text: click.echo(text, err=True))


def _configuration(text: str) -> dict[str, Any]:
    file = Path(text)
    try:
        is_file = not text.lstrip().startswith("{") and file.is_file()
        said = file.read_text(encoding="utf-8") if is_file else text
    except (OSError, ValueError) as error:
        raise ConfigError(f"--default-config: {text}: cannot be read: {error}") from None
    try:
        found = json.loads(said)
    except ValueError as error:
        where = f"{text}: " if is_file else ""
        raise ConfigError(
            f"--default-config: {where}is no JSON ({error}); write '{{\"delay\": 2}}', or the path of a file with that"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(f'--default-config: must be an object such as {{"delay": 2}}, not {said.strip()}')
    return found


def _require(mark: str, folder: Path | None, configuration: dict[str, Any]) -> None:
    """See that the node is there, can be warped and takes these arguments, before anything starts."""
    if folder is not None and not path_of(folder).is_dir():
        raise ConfigError(f"--plugins-dir: there is no folder {folder}")
    catalogue = Catalogue([path_of(folder)] if folder is not None else [])
    there = [] if "." in mark else [each for each in catalogue.listings([]) if each.mark == mark]
    listing = next((each for each in there if each.type != "source"), None) or catalogue.find(mark)
    if listing.type == "source":
        raise ConfigError(f"--node-mark: {mark} is a source, which runs where its pipeline runs; take a proc or a sink")
    if wrong := listing.complaints(configuration):
        raise ConfigError(f"--default-config: {'; '.join(map(str, wrong))}")
