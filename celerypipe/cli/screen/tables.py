"""Tables of what goes on, on the terminal of a command; what stands in them came from elsewhere."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from celerypipe.process.terminals import harmless

#: Columns of what goes into a file or a pipe.
FILE_WIDTH = 140


def table(*columns: str) -> Table:
    """Return an empty one."""
    made = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in made.columns:
        column.overflow = "fold"
    return made


def row(into: Table, *cells: str | Text) -> None:
    """Add a row. Others wrote these words, perhaps a stranger: they are no markup and steer no terminal."""
    into.add_row(*(Text(harmless(cell)) if isinstance(cell, str) else cell for cell in cells))


def age(seconds: float | None) -> str:
    """Return seconds as people read them; - for none."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.0f} days"


def size(count: int) -> str:
    """Return bytes as people read them."""
    return f"{count / 1024**3:.1f} GiB" if count >= 1024**3 else f"{count / 1024**2:.0f} MiB"
