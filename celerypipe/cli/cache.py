"""``celerypipe cache``: the results that are remembered - look at them, forget them, ask why, fill it beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from celerypipe.cli.options import ALLOW, REFRESH
from celerypipe.cli.run import supervise
from celerypipe.errors import ConfigError
from celerypipe.node_cache import CacheUse
from celerypipe.pipeline import Pipeline
from celerypipe.report import Report
from celerypipe.runner import Runner
from celerypipe.settings import Settings
from celerypipe.warming import up_to_cached

REDIS_OPTION = click.option("--redis", metavar="URL", help="Where Redis is. Default: CELERYPIPE_REDIS_URL.")
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def cache() -> None:
    """Look after the result cache: what nodes with "cache" made, kept by what they were asked.

    Which node, which code, which configuration, which input: whoever asks the same again gets the result that is kept.
    It is in the Redis of the runs, or where CELERYPIPE_CACHE_URL says.
    """


@cache.command()
@click.argument("pipeline", type=click.Path(dir_okay=False, path_type=Path))
@REDIS_OPTION
@click.option("--local", is_flag=True, help="Run warped nodes here too, through the real codec.")
@REFRESH
@ALLOW
@click.option("--quiet", is_flag=True, help="No progress and no events, only the report.")
@JSON_OPTION
def warm(
    pipeline: Path,
    redis: str | None,
    local: bool,
    refresh: tuple[str, ...],
    allow: tuple[Path, ...],
    quiet: bool,
    as_json: bool,
) -> None:
    """Fill the cache: run PIPELINE up to its nodes with a cache, so that a later run finds all their results.

    Nodes after the last one with a cache do not run, and no sink does; nothing is written to the pipeline's folder.
    What is known already is not computed again, unless --refresh says so.

    Exit status: 0 done, 1 the run failed or was cancelled, 2 something is wrong before it runs.
    """
    definition = up_to_cached(Pipeline.load(pipeline, allow))
    settings = Settings.from_environment()
    if redis is None and settings.redis_url is None and settings.cache.url is None:
        raise ConfigError(
            "what is kept in a private Redis goes with it; say where it is to stay: --redis URL, CELERYPIPE_REDIS_URL, "
            "or CELERYPIPE_CACHE_URL=file:///FOLDER"
        )

    def work(runner: Runner, show: Callable[[Report], None] | None) -> Report:
        return runner.run(definition, on_progress=show)

    use = CacheUse(refresh=refresh)
    supervise(definition, work, redis=redis, local=local, as_json=as_json, quiet=quiet, cache=use)
