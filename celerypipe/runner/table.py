"""A table for people that is as wide as there is room: what matters least gives way, and no cell is cut."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

#: Columns that a name keeps on the narrowest terminal; a longer one goes on below.
NARROWEST = 8


def paper(width: int) -> Console:
    """Return standard output for tables; a file or a pipe, which has no width of its own, gets this one."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else width)


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and a cell for each row.

    ``rank``: the column of the highest rank gives way first, those of rank 0 at last, from the right. ``brief``: cells
    that take less room and say less, taken before a column of rank 0 has to share its room.
    """

    heading: str
    cells: Sequence[Text | str]
    rank: int = 0
    brief: Sequence[Text | str] | None = None


def fitted(columns: Sequence[Column], console: Console, options: ConsoleOptions) -> Table:
    """Return a table of these columns, the first of which has the names of the rows, that fits into the width."""
    shown, brief = list(columns), False
    names = max(len(str(cell)) for cell in (shown[0].heading, *shown[0].cells))
    while (wide := _width(shown, console, options, brief=brief)) > options.max_width:
        giving = max(shown, key=lambda column: column.rank)
        if giving.rank:
            shown.remove(giving)
        elif not brief:
            brief = True
        elif len(shown) > 1 and wide - max(0, names - NARROWEST) > options.max_width:
            shown.pop()  # a number that is cut would be another number
        else:
            break
    table = _table(shown, ascii_only=options.ascii_only, brief=brief)
    if (excess := wide - options.max_width) > 0:
        table.columns[0].width = max(NARROWEST, names - excess)
    return table


def _width(columns: Sequence[Column], console: Console, options: ConsoleOptions, *, brief: bool) -> int:
    table = _table(columns, ascii_only=options.ascii_only, brief=brief)
    return Measurement.get(console, options.update(max_width=10_000), table).maximum


def _table(columns: Sequence[Column], *, ascii_only: bool, brief: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column.heading, justify="right" if place else "left", overflow="fold", no_wrap=bool(place))
    rows = zip(*((column.brief if brief and column.brief else column.cells) for column in columns), strict=True)
    for row in rows:
        table.add_row(*(_plain(cell) if ascii_only else cell for cell in row))
    return table


def _plain(cell: Text | str) -> Text | str:
    """A cell for an encoding that has no Greek letters."""
    if isinstance(cell, str):
        return cell.replace("µ", "u")
    return Text(cell.plain.replace("µ", "u"), cell.style)
