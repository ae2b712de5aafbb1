"""``celerypipe run``: run a pipeline, show how far it is, print the report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import click
from rich.console import Console

from celerypipe.cache.node import CacheUse
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check.complaints import notes, require
from celerypipe.check.loading import load
from celerypipe.cli.endings import Ending
from celerypipe.cli.options import (
    ALLOW,
    LOCAL,
    LOG_FORMAT,
    LOG_LEVEL,
    NO_CACHE,
    PLACE,
    QUIET,
    REDIS,
    REFRESH,
    RERUN_FAILING,
    SET,
    Duration,
)
from celerypipe.cli.screen.lines import LogDisplay
from celerypipe.cli.screen.output import output_for
from celerypipe.cli.screen.progress import progress, tell
from celerypipe.cli.screen.terminal import Screen
from celerypipe.definition.overrides import Overrides
from celerypipe.definition.pipeline import Pipeline
from celerypipe.definition.shape import LONGEST
from celerypipe.embedded.embedded import Embedded
from celerypipe.errors import CelerypipeError, NodeError
from celerypipe.heartbeat.descendants import end_children
from celerypipe.heartbeat.procfs import now
from celerypipe.process import log
from celerypipe.redis.address import Address
from celerypipe.redis.secret import seen_in_ps
from celerypipe.runner.folder.recording import MOST
from celerypipe.runner.report import Report
from celerypipe.runner.resume import resumable
from celerypipe.runner.runner import Runner
from celerypipe.settings import RedisSettings, Settings


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a run is wanted: the options that all commands have which run something."""

    redis: str | None
    local: bool
    as_json: bool
    quiet: bool
    cache: CacheUse = field(default_factory=CacheUse)
    fail_on_skip: bool = False
    watch: bool = False
    log_level: str = "WARNING"
    record: tuple[Path | None, int] = (None, MOST)


@click.command()
@click.argument("pipeline", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@SET
@PLACE
@REDIS
@LOCAL
@click.option(
    "--timeout",
    type=Duration(LONGEST),
    metavar="SECONDS",
    help="Stop the run after this time. It comes before the pipeline's deadline.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the report as JSON; everything else goes to stderr, also what nodes print.",
)
@click.option(
    "--resume",
    metavar="RUN",
    is_flag=False,
    flag_value="",
    help="Continue that run of PIPELINE. Without RUN, at the end of the line: list the runs.",
)
@NO_CACHE
@REFRESH
@RERUN_FAILING
@ALLOW
@LOG_FORMAT
@LOG_LEVEL
@click.option(
    "--watch",
    is_flag=True,
    help="Load edited code while the run goes on: nodes here anew, and the workers that this command starts.",
)
@click.option(
    "--record",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Record what each node gets and makes of it in a new folder, for `celerypipe replay-hop`.",
)
@click.option(
    "--record-most",
    metavar="BYTES",
    type=click.IntRange(1),
    default=MOST,
    help="Record so many bytes at most; default 1,000,000,000.",
)
@click.option("--fail-on-skip", is_flag=True, help="Exit with 1 if a message was skipped (on_error: skip).")
@QUIET
def run(
    pipeline: Path,
    values: tuple[str, ...],
    places: tuple[str, ...],
    redis: str | None,
    local: bool,
    timeout: float | None,
    as_json: bool,
    resume: str | None,
    no_cache: bool,
    refresh: tuple[str, ...],
    rerun_failing: bool,
    quiet: bool,
    allow: tuple[Path, ...],
    watch: bool,
    fail_on_skip: bool,
    log_level: str,
    record: Path | None,
    record_most: int,
) -> None:
    """Run PIPELINE, a JSON or YAML file; `-` reads it from standard input.

    Where nothing names a Redis, it starts a temporary one and one worker for each queue of the pipeline,
    and stops them at the end.

    Ctrl-C stops the sources and finishes the messages that they have sent; a second Ctrl-C stops at once. SIGTERM, and
    closing the terminal, finish messages for at most 8 s; SIGQUIT (Ctrl-\\) stops at once. `celerypipe cancel` stops a
    run from any machine. If the pipeline has a "folder", the report is written there too: report.json.

    First, Redis and the workers are checked, as by `celerypipe check --live`: errors end the command before anything
    runs, warnings are shown. If a queue has no worker, the run waits for one, unless the node's on_no_worker is fail or
    local.

    With --watch an edited file is loaded within about a second, and the run goes on: a node that runs here is made anew
    before its next message, and a worker that this command started restarts. For a file that does not import, its line
    is said, and the code before goes on until it is mended. A source, and workers of others, go on as they are.

    Nodes with "cache" take known results from the result cache: see `celerypipe cache --help`.

    Exit status: 0 done, also when messages were skipped (--fail-on-skip: 1); 1 the run failed or was cancelled; 2 the
    command line, the pipeline or the settings are wrong; 3 dead letters were kept; 69 Redis or workers are missing; 130
    after Ctrl-C.
    """
    overrides = Overrides.read(values, places)
    definition = load(pipeline, allow, Settings.from_environment().plugins, local=local, overrides=overrides)
    if timeout is not None:
        definition = definition.model_copy(update={"deadline": timeout})

    def work(runner: Runner, show: Callable[[Report], None] | None) -> Report:
        return runner.run(definition, resume=resume, on_progress=show)

    cache = CacheUse(not no_cache, refresh, rerun_failing)
    wanted = Wanted(redis, local, as_json, quiet, cache, fail_on_skip, watch, log_level, (record, record_most))
    sys.exit(supervise(definition, work, wanted, resume=resume))


def supervise(
    definition: Pipeline,
    work: Callable[[Runner, Callable[[Report], None] | None], Report],
    wanted: Wanted,
    *,
    resume: str | None = None,
    whole: Pipeline | None = None,
    fed: Sequence[str] = (),
) -> Ending:
    """Do the work with a runner for this pipeline: check it, find or start Redis, show events, print the report.

    Return how the command ends, where no error says so.

    ``whole``: the pipeline that it is a part of, if it is one; ``fed``: nodes that need no link in.
    """
    local = wanted.local
    settings = Settings.from_environment()
    catalogue = Catalogue((*definition.plugin_folders, *settings.plugins))
    require(definition, catalogue, local=local, fed=fed)
    wanted.cache.check(definition.nodes)
    if resume is not None:
        resumable(definition, catalogue, resume, local=local)  # before Redis and workers are started for it
    console = Console(file=cast(IO[str], Screen(sys.stderr)))

    def say(text: str) -> None:
        if not wanted.quiet:
            tell(console, text)

    found = RedisSettings.find(wanted.redis)
    for text in _warnings(whole or definition, catalogue, settings, found, local=local):
        say(text)
    with (
        _children_ended(),
        output_for(definition, as_json=wanted.as_json) as publish,
        redis_for(definition, found.address, local=local, say=say, watch=wanted.watch) as url,
    ):
        try:
            with progress(console, quiet=wanted.quiet) as show:
                report = work(_runner(url, wanted, say, LogDisplay(console)), show)
        except CelerypipeError as error:
            if error.report is not None:
                publish(error.report)
            if isinstance(error, NodeError) and error.remote_traceback and not log.is_json():
                click.echo(error.remote_traceback, err=True)
            raise
        publish(report)
    return _ending_after(report, fail_on_skip=wanted.fail_on_skip)


@contextmanager
def _children_ended() -> Iterator[None]:
    """What nodes start in this process ends with the run, as it ends with a worker; where there is a /proc."""
    began = now() if sys.platform == "linux" else 0
    try:
        yield
    finally:
        end_children(began)


def _ending_after(report: Report, *, fail_on_skip: bool = False) -> Ending:
    """Return how a command ends over a run that did not fail."""
    if report.stopped_by == "SIGINT":
        return Ending.INTERRUPTED
    if any(node.dead for node in report.nodes):
        return Ending.DEAD_LETTERS
    if fail_on_skip and any(node.skipped for node in report.nodes):
        return Ending.FAILED
    return Ending.DONE


def _runner(url: str | None, wanted: Wanted, say: Callable[[str], None], lines: LogDisplay) -> Runner:
    cache = wanted.cache
    return Runner(
        url,
        local=wanted.local,
        cache=cache.on,
        refresh=cache.refresh,
        rerun_failing=cache.rerun_failing,
        reload=wanted.watch,
        on_event=say,
        logs=False if wanted.quiet else lines.show,
        log_level=wanted.log_level,
        record=wanted.record[0],
        record_most=wanted.record[1],
    )


def _warnings(
    definition: Pipeline, catalogue: Catalogue, settings: Settings, redis: RedisSettings, *, local: bool
) -> Iterator[str]:
    """What is to be said before a run that nothing is wrong with."""
    if redis.address is not None and definition.warped and not local:
        yield str(redis)
    yield from redis.unheard
    if warning := seen_in_ps(sys.argv):
        yield warning
    yield from notes(definition, catalogue)
    private = redis.address is None and definition.warped and not local
    if private and settings.cache.url is None and any(node.cache is not None for node in definition.nodes):
        cure = "keep them with --redis URL or CELERYPIPE_CACHE_URL=file:///FOLDER"
        yield f"cached results are lost with the temporary Redis; {cure}"


@contextmanager
def redis_for(
    pipeline: Pipeline, address: Address | None, *, local: bool, say: Callable[[str], None], watch: bool = False
) -> Iterator[str | None]:
    """The Redis that was named, or a private one with its workers; none when nothing runs elsewhere."""
    if address is not None or local or not pipeline.warped:
        yield address.url if address is not None else None
        return
    with Embedded(pipeline, reload=watch, on_event=say) as private:
        if sys.stderr.isatty():
            say(f"for other terminals, as in `celerypipe status`: --redis {private}")
        yield private
