"""Options that several commands share."""

from __future__ import annotations

import math
from pathlib import Path

import click

from celerypipe.definition.shape import LONGEST


def _seconds(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    """Refuse what click takes for a number in any range."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is no number of seconds")
    return value


TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=LONGEST),
    callback=_seconds,
    metavar="SECONDS",
    help="End the run after so long; wins over the pipeline's deadline.",
)

REDIS = click.option(
    "--redis", metavar="URL", help="Where Redis is. Default: CELERYPIPE_REDIS_URL, else a private one."
)
LOCAL = click.option("--local", is_flag=True, help="Run warped nodes here too, through the real codec; needs no Redis.")
QUIET = click.option("--quiet", is_flag=True, help="No progress and no events, only the report.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

ALLOW = click.option(
    "--allow",
    multiple=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="A folder that the pipeline may read and write besides its own; may be given several times.",
)

NO_CACHE = click.option("--no-cache", is_flag=True, help="Look nothing up in the result cache, and keep nothing there.")
REFRESH = click.option(
    "--refresh",
    multiple=True,
    metavar="NODE",
    help="Compute the results of this node anew, and keep them; may be given several times.",
)
RERUN_FAILING = click.option(
    "--rerun-failing", is_flag=True, help="Run again what failed, where the result cache keeps failures."
)
