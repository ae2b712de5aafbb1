"""Where the commands print their tables."""

from __future__ import annotations

import sys

from rich.console import Console


def paper(width: int) -> Console:
    """Return standard output for tables; a file or a pipe, which has no width of its own, gets this one."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else width)
