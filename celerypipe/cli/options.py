"""Options that several commands share."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from celerypipe.definition.names import wrong_queue
from celerypipe.process import log
from celerypipe.redis.address import DEFAULT_ADDRESS
from celerypipe.redis.secret import seen_in_ps
from celerypipe.settings import RedisSettings


class Duration(click.types.FloatParamType):
    """A number of seconds: above 0, and at most so many, which a range of click would print in each help."""

    name = "seconds"

    def __init__(self, most: float) -> None:
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse nan too."""
        found: float = super().convert(value, param, ctx)
        if not 0 < found <= self.most:
            self.fail(f"{value} is no number of seconds above 0 and at most {self.most:.0f}", param, ctx)
        return found


def redis_option(otherwise: str, first: str = "") -> Callable[[click.decorators.FC], click.decorators.FC]:
    """``otherwise``: where Redis is if nothing says so; ``first``: what else is asked before the usual variables."""
    help = f"The address of Redis. Default: {first}CELERYPIPE_REDIS_URL, then CELERY_BROKER_URL, then {otherwise}."
    return click.option("--redis", "-b", "--broker", "redis", metavar="URL", help=help)


def queues_option(help: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """Return the option that names queues, none of them by default."""
    return click.option("--queue", "-Q", "queues", callback=_queues, metavar="QUEUE", help=f"{help}; several: cpu,io.")


def _queues(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str]:
    queues = [part.strip() for part in value.split(",")] if value is not None else []
    for complaint in filter(None, map(wrong_queue, queues)):
        raise click.BadParameter(complaint)
    return queues


def named_redis(given: str | None, *, tell: bool = True) -> RedisSettings:
    """Return where Redis is by the option or the environment, and say it on standard error; what is not heard, too."""
    found = RedisSettings.find(given)
    if tell:
        click.echo(str(found), err=True)
    for text in filter(None, [seen_in_ps(sys.argv), *found.unheard]):
        click.echo(f"warning: {text}", err=True)
    return found


REDIS = redis_option("a temporary Redis")
REDIS_OR_USUAL = redis_option(str(DEFAULT_ADDRESS))
LOCAL = click.option(
    "--local", is_flag=True, help="Run all nodes in this process, without Redis; messages are encoded as for a worker."
)
QUIET = click.option(
    "--quiet",
    is_flag=True,
    help="Show only the report: no progress, no events, nothing that workers log or print.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

ALLOW = click.option(
    "--allow",
    multiple=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Another folder that the pipeline may read and write. Repeatable.",
)

PLUGINS = click.option(
    "--plugins",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another folder with plugin nodes. Repeatable.",
)

SET = click.option(
    "--set",
    "values",
    multiple=True,
    metavar="NODE.KEY=VALUE",
    help="Change an argument of a node, or one of its keys: transcribe.model=small, read.timeout=60. Repeatable.",
)
PLACE = click.option(
    "--place",
    "places",
    multiple=True,
    metavar="NODE=QUEUE",
    help="Run a node on the workers of a queue, or `here`; or a TOML file with a line for each node. Repeatable.",
)

NO_CACHE = click.option("--no-cache", is_flag=True, help="Do not use the result cache.")
REFRESH = click.option(
    "--refresh",
    multiple=True,
    metavar="NODE",
    help="Compute the results of this node again, and keep the new ones. Repeatable.",
)
RERUN_FAILING = click.option(
    "--rerun-failing", is_flag=True, help="Run messages again whose failure is in the result cache."
)


def _choose(value: str | None) -> None:
    """The workers that a run starts write theirs in the same way."""
    if value is not None:
        os.environ[log.VARIABLE] = value
    logging.captureWarnings(log.is_json())


LOG_LEVEL = click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], case_sensitive=False),
    default="WARNING",
    show_default=True,
    help="What workers log is shown from this level on; what their nodes print is always shown.",
)

LOG_FORMAT = click.option(
    "--log-format",
    type=click.Choice(log.FORMATS),
    expose_value=False,
    callback=lambda _context, _parameter, value: _choose(value),
    help=f"What is said on stderr: lines for people, or a JSON object each; else {log.VARIABLE}, else text.",
)
