"""``celerypipe dead``: the messages that were given up - list them, look at them, run them again, remove them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from celerypipe.cli.endings import Ending
from celerypipe.cli.options import ALLOW, JSON, LOCAL, LOG_FORMAT, QUIET, REDIS, named_redis
from celerypipe.cli.run import Wanted, supervise
from celerypipe.cli.screen.letters import content_of, facts_of, table
from celerypipe.definition.graph import heads_of
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import CodecError, ConfigError
from celerypipe.message.message import Message
from celerypipe.process.terminals import harmless
from celerypipe.runner.carrier.requests import request_replay
from celerypipe.runner.folder.letters import PLACE, DeadLetters, chosen
from celerypipe.runner.report import Report
from celerypipe.runner.runner import Runner
from celerypipe.runner.table import paper

#: Columns of what goes into a file or a pipe.
FILE_WIDTH = 200
#: Lines about files that are no letters; the rest is a number.
STRANGE = 10

PLACE_ARGUMENT = click.argument("place", type=click.Path(path_type=Path))
NODE_OPTION = click.option("--node", metavar="NAME", help="Only letters of this node.")


@click.group()
def dead() -> None:
    """Manage dead letters: failed messages that a node with "on_error": "dead_letter" kept.

    PLACE is the pipeline file, or the folder that the pipeline writes to. LETTER is the name of a letter, or its
    beginning.
    """


@dead.command("list")
@PLACE_ARGUMENT
@ALLOW
@NODE_OPTION
@JSON
def list_(place: Path, allow: tuple[Path, ...], node: str | None, as_json: bool) -> None:
    """List the dead letters, oldest first."""
    found = chosen(store_of(place, allow), node=node)
    if as_json:
        letters = [dataclasses.asdict(letter) for letter in found.letters]
        click.echo(json.dumps({"letters": letters, "strange": found.strange}, indent=2, ensure_ascii=False))
        return
    if found.letters:
        paper(FILE_WIDTH).print(table(found.letters))
    else:
        click.echo("no dead letters")
    tell_strange(found.strange)


@dead.command()
@PLACE_ARGUMENT
@ALLOW
@click.argument("letter")
@JSON
def show(place: Path, allow: tuple[Path, ...], letter: str, as_json: bool) -> None:
    """Show one dead letter: the message, the node, the error and its traceback."""
    store = store_of(place, allow)
    one = store.get(letter)
    message: Message | None = None
    trouble = ""
    try:
        message = store.message(one)
    except CodecError as error:
        trouble = str(error)
    if as_json:
        whole = {**dataclasses.asdict(one), "content": content_of(message), "unreadable": trouble}
        click.echo(json.dumps(whole, indent=2, ensure_ascii=False))
        return
    for name, value in facts_of(one, message, trouble):
        click.echo(f"{name + ':':<10} {harmless(value)}")
    if one.traceback:
        click.echo(f"\n{harmless(one.traceback).rstrip()}")


@dead.command()
@PLACE_ARGUMENT
@ALLOW
@click.argument("letters", nargs=-1, metavar="[LETTER]...")
@NODE_OPTION
@click.option("--run", "run_id", metavar="RUN", help="Replay in this active run instead of a new one.")
@REDIS
@LOCAL
@QUIET
@LOG_FORMAT
@JSON
def replay(
    place: Path,
    allow: tuple[Path, ...],
    letters: tuple[str, ...],
    node: str | None,
    run_id: str | None,
    redis: str | None,
    local: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run dead letters again, the given ones or all. Each starts at the node that failed.

    Sources do not run, and file sinks append to their files. A letter is removed when all messages that came of it
    reached a sink. It remains if it fails again, if a join has no partner for it, if something of it is skipped, or if
    the run fails.

    Exit status: 0 all succeeded (with --run: that run has accepted them), 3 some remain, 1 the run failed; otherwise as
    of `celerypipe run`.
    """
    store = store_of(place, allow)
    found = chosen(store, letters, node)
    tell_strange(found.strange)
    names = [letter.name for letter in found.letters]
    if not names:
        click.echo("no dead letters to replay", err=True)
        return
    if run_id is not None:
        _in_run(run_id, names, redis, as_json=as_json)
        return
    pipeline = pipeline_of(place, allow)

    def work(runner: Runner, show: Callable[[Report], None] | None) -> Report:
        return runner.replay(pipeline, names, on_progress=show)

    try:
        fed = heads_of(pipeline)
        ending = supervise(pipeline, work, Wanted(redis, local, as_json, quiet), fed=fed)
    finally:
        there = {letter.name for letter in store.find().letters}
        stay = [name for name in names if name in there]
        click.echo(f"{counted(len(names) - len(stay))} succeeded, {len(stay)} remain", err=True)
    sys.exit(ending or (Ending.DEAD_LETTERS if stay else Ending.DONE))


def _in_run(run_id: str, names: list[str], redis: str | None, *, as_json: bool) -> None:
    address = named_redis(redis).address
    if address is None:
        raise ConfigError("the address of the run's Redis is missing: --redis URL, or CELERYPIPE_REDIS_URL")
    request_replay(address, run_id, names)
    if as_json:
        click.echo(json.dumps({"run": run_id, "taken": names}, indent=2))
        return
    text = "each is removed when it succeeds; those that come too late remain: see `celerypipe dead list`"
    click.echo(f"run {run_id} replays {counted(len(names))}; {text}")


@dead.command()
@PLACE_ARGUMENT
@ALLOW
@click.argument("letters", nargs=-1, metavar="[LETTER]...")
@NODE_OPTION
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@JSON
def remove(
    place: Path,
    allow: tuple[Path, ...],
    letters: tuple[str, ...],
    node: str | None,
    every: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove dead letters for good: those named, those of a node, or all."""
    if not letters and not every and node is None:
        raise click.UsageError("name the letters to remove, or a node (--node), or all of them (--all)")
    store = store_of(place, allow)
    found = chosen(store, letters, node)
    count = counted(len(found.letters))
    if found.letters and not yes:
        click.confirm(f"Remove {count} from {store.folder} for good?", abort=True, err=True)
    gone = [letter.name for letter in found.letters if store.remove(letter.name)]
    if as_json:
        click.echo(json.dumps({"removed": gone, "strange": found.strange}, indent=2))
        return
    click.echo(f"removed {counted(len(gone))}")
    tell_strange(found.strange)


def store_of(place: Path, allow: Iterable[Path]) -> DeadLetters:
    """The letters of a pipeline's file, of the folder that it writes to, or of the folder that they are in."""
    if not place.is_dir():
        folder = Pipeline.load(place, allow).folder_path
        if folder is None:
            raise ConfigError(f'{place}: this pipeline has no "folder", so it keeps no dead letters')
        return DeadLetters(folder / PLACE)
    if place.absolute().name == PLACE:
        return DeadLetters(place)
    if not (place / PLACE).is_dir() and not (place / "config.json").is_file():
        raise ConfigError(f"{place}: no pipeline wrote to this folder: there is neither {PLACE}/ nor config.json in it")
    return DeadLetters(place / PLACE)


def pipeline_of(place: Path, allow: Iterable[Path]) -> Pipeline:
    """The pipeline of a file, or the one that wrote to a folder; it knows no more where its own file was."""
    if not place.is_dir():
        return Pipeline.load(place, allow)
    folder = place.absolute().parent if place.absolute().name == PLACE else place.absolute()
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder}: there is no config.json that says which pipeline this was; name the pipeline's file"
        )
    pipeline = Pipeline.load(folder / "config.json", allow).model_copy(update={"folder": str(folder)})
    relative = [name for name in pipeline.plugins if not Path(name).is_absolute()]
    if relative:
        text = f"its plugins {', '.join(relative)} are relative to a file that config.json does not name"
        raise ConfigError(f"{folder}: {text}; name the pipeline's file instead of the folder")
    return pipeline


def counted(count: int) -> str:
    """Return ``1 dead letter``, ``2 dead letters``."""
    return "1 dead letter" if count == 1 else f"{count} dead letters"


def tell_strange(lines: list[str]) -> None:
    """Say what in the folder is no letter."""
    for line in lines[:STRANGE]:
        click.echo(f"ignored: {harmless(line)}", err=True)
    if len(lines) > STRANGE:
        click.echo(f"ignored: {len(lines) - STRANGE} more", err=True)
