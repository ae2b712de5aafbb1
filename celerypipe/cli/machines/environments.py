"""``celerypipe environments``: those that were built on this machine for workers, and what becomes of them."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import click

from celerypipe.cli.options import JSON
from celerypipe.cli.screen.tables import FILE_WIDTH, age, row, size, table
from celerypipe.definition.names import environment_of, with_environment
from celerypipe.environments import container
from celerypipe.environments.building import plan, ready
from celerypipe.environments.requirements import lines_of
from celerypipe.environments.stored import StoredEnvironment, environments_in, leftovers_in
from celerypipe.environments.wanted import Environment, listed_in, wanted_by
from celerypipe.errors import ConfigError, did_you_mean
from celerypipe.runner.table import paper
from celerypipe.settings import Settings

#: Seconds of a day.
DAY = 86_400.0


@click.group()
def environments() -> None:
    """List, build and remove the environments that workers on this machine run in.

    \b
    worker_configs/gpu.toml says which there are:
    [environments.asr]
    requirements = ["numpy<2"]   # or a file beside it: "asr.txt"
    python = "3.12"              # or the path of a Python; default: the one that runs celerypipe
    image = "asr:3"              # in place of both: a container image, run by docker or podman
    A node asks for one with "environment": "asr" in its warp_configuration. Its workers are started with
    `celerypipe worker -Q gpu+asr`, which builds it if it is not there yet.
    """


@environments.command()
@JSON
def ls(as_json: bool) -> None:
    """List those that were built, the one used last first."""
    found = environments_in(Settings.from_environment().environments)
    if as_json:
        click.echo(json.dumps({"environments": [_told(each) for each in found]}, indent=2, ensure_ascii=False))
        return
    if not found:
        click.echo("none was built here; `celerypipe environments --help` says how to ask for one")
        return
    listing = table("id", "name", "python", "requirements", "size", "used", "wanted by")
    for each in found:
        used = "now" if each.busy else f"{age(time.time() - each.used)} ago"
        facts = each.made.python, ", ".join(each.made.requirements) or "-", size(each.made.size), used
        row(listing, each.key, each.title, *facts, "\n".join(each.made.sources))
    paper(FILE_WIDTH).print(listing)


@environments.command()
@click.argument("which", metavar="[NAME]", required=False)
@click.option("--unused", type=click.FloatRange(0), metavar="DAYS", help="Those that no worker used for so many days.")
@click.option("--all", "everything", is_flag=True, help="All that are not in use.")
def rm(which: str | None, unused: float | None, everything: bool) -> None:
    """Remove environments: by NAME, or by the beginning of an id. One that is in use is never removed."""
    if sum((which is not None, unused is not None, everything)) != 1:
        raise click.UsageError("say which: a NAME or an id, --unused DAYS, or --all")
    folder = Settings.from_environment().environments
    there = environments_in(folder)
    if which is not None:
        chosen = _named(which, there)
    else:
        latest = time.time() - (unused or 0.0) * DAY
        chosen = [each for each in there if everything or each.used <= latest]
        for place in leftovers_in(folder):
            if place.remove():
                click.echo(f"removed {place.key}, which was not built to its end")
    kept = [each for each in chosen if not _removed(each)]
    if which is not None and kept:
        raise ConfigError(f"{which!r} is in use; stop its workers first: `celerypipe status` shows them")


@environments.command()
@click.argument("what", metavar="QUEUE|FILE")
def build(what: str) -> None:
    """Build environments before a worker needs them.

    QUEUE: gpu+asr for that one, gpu for all of worker_configs/gpu.toml. FILE: another file with such tables, or one of
    requirements, such as requirements.txt.
    """
    folder = Settings.from_environment().environments
    wanted = list(_wanted(what))
    if not wanted:
        raise ConfigError(f"{what}: asks for no environment; write a table [environments.NAME] there")
    for each in wanted:
        if each.image:
            queue = (
                what if each.name in (what, environment_of(what)[1]) else with_environment(Path(what).stem, each.name)
            )
            line = container.line(
                each.image, ["celerypipe", "worker", "-Q", queue], [queue], container.Outside.here(each, os.environ)
            )
            click.echo(f"{each.name}: is an image; `celerypipe worker -Q {queue}` is: {shlex.join(line)}")
            continue
        planned = plan(each, folder)
        os.close(ready(planned, lambda text: click.echo(text, err=True)))
        click.echo(f"{each.name}: {planned.place.folder}")


def _wanted(what: str) -> Iterator[Environment]:
    """Return what a queue or a file asks for."""
    path, configs = Path(what), Settings.from_environment().worker_configs
    if path.is_file() and path.suffix == ".toml":
        yield from listed_in(path).values()
    elif path.is_file():
        yield Environment(path.absolute().parent.name or path.stem, lines_of(path), None, str(path.absolute()))
    elif (file := configs / f"{what}.toml").is_file():
        yield from listed_in(file).values()
    elif (one := wanted_by(what, configs)) is not None:
        yield one
    else:
        raise ConfigError(f"there is no file {what}, and no {file}")


def _named(word: str, there: list[StoredEnvironment]) -> list[StoredEnvironment]:
    found = [each for each in there if word in each.made.names or (word and each.key.startswith(word))]
    if not found:
        names = sorted({name for each in there for name in each.made.names})
        known = f"; there are {', '.join(names)}" if names else "; none was built here"
        raise ConfigError(f"there is no environment {word!r}{did_you_mean(word, names)}{known}")
    return found


def _removed(one: StoredEnvironment) -> bool:
    if one.place.remove():
        click.echo(f"removed {one.key} ({one.title}, {size(one.made.size)})")
        return True
    click.echo(f"kept {one.key} ({one.title}): it is in use", err=True)
    return False


def _told(one: StoredEnvironment) -> dict[str, object]:
    return {
        "id": one.key,
        "names": one.made.names,
        "python": one.made.python,
        "requirements": one.made.requirements,
        "bytes": one.made.size,
        "used": one.used,
        "in_use": one.busy,
        "folder": str(one.place.folder),
        "wanted_by": one.made.sources,
    }
