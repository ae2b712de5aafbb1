"""``celerypipe cache``: the results that are remembered - look at them, forget them, ask why, fill it beforehand."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from celerypipe.cache import explain as explanation
from celerypipe.cache import index
from celerypipe.cache.explain import short
from celerypipe.cache.node import CacheUse
from celerypipe.cache.warming import up_to_cached
from celerypipe.check.loading import load
from celerypipe.cli.options import ALLOW, JSON, LOG_FORMAT, PLACE, QUIET, REDIS, REFRESH, SET, named_redis, redis_option
from celerypipe.cli.run import Wanted, supervise
from celerypipe.definition.overrides import Overrides
from celerypipe.errors import ConfigError
from celerypipe.process.terminals import harmless
from celerypipe.redis.address import DEFAULT_ADDRESS, Address
from celerypipe.redis.connection import Client, connect, explained
from celerypipe.redis.secret import hidden
from celerypipe.runner.report import Report, long_span, span, volume
from celerypipe.runner.runner import Runner
from celerypipe.runner.table import paper
from celerypipe.settings import RedisSettings, Settings

#: Where the cache is: a Redis of its own comes before that of the runs.
REDIS_OPTION = redis_option(str(DEFAULT_ADDRESS), first="CELERYPIPE_CACHE_URL if it is a Redis, then ")

#: Columns of what goes into a file or a pipe.
FILE_WIDTH = 160
#: Seconds that Redis has for one answer.
PATIENCE = 10.0


@click.group()
def cache() -> None:
    """Manage the result cache: the results of nodes with "cache".

    A result is found again by its node, code, configuration and input. Results are in the Redis of the runs, or in the
    one that CELERYPIPE_CACHE_URL names. Copies in a folder or an object store are not listed here, and not removed.

    PATTERN is a mark (tasks.gpu.Detect) or a fingerprint; * and ? are wildcards: blake3-0123456789ab*
    """


@cache.command(short_help="Show size, hits and misses.")
@REDIS_OPTION
@JSON
def stats(redis: str | None, as_json: bool) -> None:
    """Show the size of the cache, and hits, misses, bytes and seconds saved of all runs together."""
    with _client(redis) as (client, address):
        found = index.stats(client)
    if as_json:
        click.echo(json.dumps({"redis": address.shown, **asdict(found)}, indent=2))
        return
    asked = found.hits + found.misses
    rate = f" ({found.hits / asked:.1%} of {asked:,})" if asked else ""
    lines = {
        "kept": f"{found.entries:,} results, {found.blobs:,} of them large; {volume(found.bytes)} in all",
        "hits": f"{found.hits:,}{rate}",
        "misses": f"{found.misses:,}",
        "saved": f"{long_span(found.seconds_saved)} of computing, {volume(found.bytes_saved)} of results",
        "evicted": f"{found.evicted:,}, the least recently used ones, to stay below the limit",
        "refused": f"{found.refused:,}, damaged, altered, or with a wrong signature",
    }
    for name, text in lines.items():
        click.echo(f"{name + ':':<9}{text}")


@cache.command(short_help="List results.")
@click.argument("pattern", default="*")
@REDIS_OPTION
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="The largest number of lines.",
)
@JSON
def ls(pattern: str, redis: str | None, limit: int, as_json: bool) -> None:
    """List the results, the last used first."""
    with _client(redis) as (client, _):
        found = list(itertools.islice(index.entries(client, pattern), limit + 1))
    shown = found[:limit]
    if as_json:
        click.echo(json.dumps([each.to_dict() for each in shown], indent=2, ensure_ascii=False))
        return
    if not shown:
        click.echo("the cache is empty" if pattern == "*" else f"no result matches {pattern!r}")
        return
    paper(FILE_WIDTH).print(_table(shown))
    if len(found) > limit:
        click.echo(f"there are more: --limit {2 * limit}", err=True)


@cache.command(short_help="Delete results.")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@REDIS_OPTION
@click.option("--all", "every", is_flag=True, help="Delete all of the cache, also what cannot be read.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@JSON
def rm(patterns: tuple[str, ...], redis: str | None, every: bool, yes: bool, as_json: bool) -> None:
    """Delete results: those that match, or all. Runs compute them again."""
    if bool(patterns) == every:
        raise click.UsageError("name the results to delete (`celerypipe cache ls` lists them), or give --all")
    with _client(redis) as (client, address):
        names = {each.fingerprint for pattern in patterns for each in index.entries(client, pattern)}
        what = "the whole cache" if every else _counted(len(names))
        if (names or every) and not yes:
            click.confirm(f"Delete {what} in {address}?", abort=True, err=True)
        if every:
            removed = index.clear(client)
            text = f"deleted the whole cache: {removed:,} keys"
        else:
            size = index.remove(client, names) if names else 0
            removed = len(names)
            text = f"deleted {what}" + (f", {volume(size)}" if size else "")
    click.echo(json.dumps({"removed": removed}) if as_json else text)
    settings = Settings.from_environment().cache
    if settings.url is not None and settings.redis is None:
        click.echo(
            f"the copies in {hidden(settings.url)} are still there, and runs use them: "
            "`celerypipe run --refresh NODE` computes and overwrites them",
            err=True,
        )


@cache.command(short_help="Say why a message was computed.")
@click.argument("run")
@click.argument("node")
@click.argument("message")
@REDIS_OPTION
def explain(run: str, node: str, message: str, redis: str | None) -> None:
    """Say why a message was computed and not taken from the cache: how it differs from the nearest cached result.

    RUN is the id of a run, or the beginning of one; the report shows it. NODE is the name of a node. MESSAGE is the
    number of the message in its source (its "sequence"), counted from 0. The misses of a run are kept for a day.
    """
    with _client(redis) as (client, _):
        click.echo(harmless(explanation.explain(client, run, node, message)))


@cache.command(short_help="Run a pipeline up to its nodes with a cache.")
@click.argument("pipeline", type=click.Path(dir_okay=False, path_type=Path))
@SET
@PLACE
@REDIS
@click.option("--local", is_flag=True, help="Run all nodes in this process; messages are encoded as for a worker.")
@REFRESH
@ALLOW
@QUIET
@LOG_FORMAT
@JSON
def warm(
    pipeline: Path,
    values: tuple[str, ...],
    places: tuple[str, ...],
    redis: str | None,
    local: bool,
    refresh: tuple[str, ...],
    allow: tuple[Path, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Fill the cache: run PIPELINE up to its nodes with "cache", so that a later run finds their results.

    Nodes after the last one with "cache" do not run, and sinks do not run. Nothing is written to the pipeline's folder.
    Cached results are not computed again, except with --refresh. --set and --place are those of the later run.

    Exit status: as of `celerypipe run`.
    """
    overrides = Overrides.read(values, places)
    whole = load(pipeline, allow, Settings.from_environment().plugins, local=local, overrides=overrides)
    definition = up_to_cached(whole)
    _look_for_a_place(redis)

    def work(runner: Runner, show: Callable[[Report], None] | None) -> Report:
        return runner.run(definition, on_progress=show)

    wanted = Wanted(redis, local, as_json, quiet, CacheUse(refresh=refresh))
    sys.exit(supervise(definition, work, wanted, whole=whole))


def _look_for_a_place(redis: str | None) -> None:
    """Raise what a run takes in its stride, and what keeps it from filling the cache."""
    settings = Settings.from_environment()
    if not settings.cache.enabled:
        raise ConfigError("CELERYPIPE_CACHE=no switches the result cache off: no result would be kept")
    address = settings.cache.redis or RedisSettings.find(redis).address
    if address is None and settings.cache.url is None:
        raise ConfigError(
            "results in a temporary Redis are lost at its end; name a place that stays: --redis URL, "
            "CELERYPIPE_REDIS_URL, or CELERYPIPE_CACHE_URL=file:///FOLDER"
        )
    if address is not None:
        with explained(address), connect(address, name="celerypipe-cache-cli", timeout=PATIENCE) as client:
            client.ping()


@contextmanager
def _client(redis: str | None) -> Iterator[tuple[Client, Address]]:
    """The Redis that the cache is in."""
    own = None if redis else Settings.from_environment().cache.redis
    address = own or named_redis(redis).or_default
    with explained(address), connect(address, name="celerypipe-cache-cli", timeout=PATIENCE) as client:
        yield client, address


def _table(found: Sequence[index.Listed]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("fingerprint", "mark", "code", "arguments"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "fingerprint")
    for heading in ("size", "took", "kept", ""):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    now = time.time()
    for each in found:
        arguments = ", ".join(f"{name}={short(value)}" for name, value in each.asked.configuration.items())
        facts = volume(each.size), span(each.seconds), long_span(max(0.0, now - each.created)) + " ago"
        failure = f"failed: {each.failure.type}" if each.failure is not None else ""
        cells = short(each.fingerprint), each.asked.mark, short(each.asked.code), arguments, *facts, failure
        table.add_row(*(Text(harmless(cell)) for cell in cells))
    return table


def _counted(count: int) -> str:
    return "1 result" if count == 1 else f"{count:,} results"
