"""What whoever starts a worker decides: on the command line, in the call, or in the file of its first queue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click

from celerypipe.errors import ConfigError
from celerypipe.worker.activation.stuck import GRACE_ALONE, GRACE_AMONG_OTHERS


def listed(value: Any) -> list[str]:
    """Return the items of a list, or of a text with commas."""
    return [item.strip() for item in (value.split(",") if isinstance(value, str) else value or ()) if item.strip()]


def given(parameter: str, options: Mapping[str, Any]) -> bool:
    """Whether whoever started the worker decided this themselves: on the command line, or in the call."""
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(parameter) if context is not None else None
    if source is None:
        return options.get(parameter) is not None
    return source.name in ("COMMANDLINE", "ENVIRONMENT")


def exit_option(text: str | None) -> float | None:
    """Read ``--exit-when-stuck``: infinite if it came without a number, None if it did not come."""
    if text is None or text == "usual":
        return None if text is None else math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"--exit-when-stuck {text}: give seconds, 0 for a worker that stays, or nothing at all")
    return seconds


def stuck_after(pool: str, option: float | None, written: float | bool | None) -> float | None:
    """Return after how many seconds a worker with a stuck node exits; None: it stays.

    ``option``: as :func:`exit_option` returns it; ``written``: that of the file. A solo
    worker exits unless it is told not to, since it can do nothing else; a worker of threads has others at work.
    """
    if pool == "prefork":
        return GRACE_ALONE  # the child exits, not the worker
    usual = GRACE_ALONE if pool == "solo" else GRACE_AMONG_OTHERS
    number = written if written is not None and not isinstance(written, bool) else usual
    if option is not None:
        return number if option == math.inf else option or None
    if written is None:
        return usual if pool == "solo" else None
    return number or None if written else None
