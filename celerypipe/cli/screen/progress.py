"""How far a run is, shown while it goes on: a table on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from celerypipe.cli.screen.terminal import plural
from celerypipe.process import log
from celerypipe.process.terminals import harmless
from celerypipe.runner.report import Report, counted, long_span

#: Seconds that the rate is the mean of.
RECENT = 30.0
#: Seconds between two lines where there is no terminal, and after a minute.
OFTEN, SELDOM = 5.0, 30.0


class Pace:
    """How many messages come through in a second, by the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, report: Report) -> None:
        """Take note of how far it is."""
        self._seen.append((report.seconds, report.through))
        while len(self._seen) > 2 and self._seen[-1][0] - self._seen[1][0] > RECENT:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Messages a second; 0.0 as long as none came through."""
        if not self._seen:
            return 0.0
        (before, few), (now, many) = ((0.0, 0) if len(self._seen) < 2 else self._seen[0]), self._seen[-1]
        return max(0, many - few) / (now - before) if now > before else 0.0


def words(report: Report, rate: float) -> str:
    """Say how far a run is: ``340 of 1,000 messages through, 28/s, 23 s left``."""
    known = report.total is not None
    parts = [
        f"{report.through:,} of {report.total:,} messages through" if known else f"{counted(report.through)} through"
    ]
    if rate:
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
    if rate and report.total is not None and report.status == "running":
        seconds = max(1, math.ceil((report.total - report.through) / rate))
        parts.append(f"{seconds} s left" if seconds < 120 else f"{long_span(seconds)} left")
    if warming := sum(node.warming for node in report.nodes):
        parts.append(f"{plural(warming, 'node')} warming up")
    return ", ".join(parts)


def line(report: Report, rate: float) -> str:
    """Say in one line how a run goes, what went wrong first."""
    failed = sum(max(0, sum(node.failed.values()) - node.retried) for node in report.nodes)
    wrong = [f"{failed:,} failed"] if failed else []
    return f"{report.pipeline}: " + ", ".join([report.headline, *wrong, words(report, rate)])


def view(report: Report, rate: float) -> RenderableType:
    """Return what a terminal shows: how far it is, then the table."""
    how_far = Text(words(report, rate))
    if not report.total:
        return Group(how_far, report)
    top = Table.grid(padding=(0, 1, 0, 0), expand=True)
    top.add_column(ratio=1, min_width=8)
    top.add_column(no_wrap=True)
    top.add_row(ProgressBar(total=report.total, completed=min(report.through, report.total)), how_far)
    return Group(top, report)


def tell(console: Console, text: str, *, mark: bool = True) -> None:
    """Say something of a run while it goes on; ``mark``: with a dot before it."""
    if log.is_json():
        console.out(log.line(logging.INFO, text, text), highlight=False)
        return
    dot = f"[dim]{'-' if console.options.ascii_only else '·'}[/dim] " if mark else ""
    console.print(f"{dot}{escape(harmless(text))}", highlight=False, soft_wrap=True)


@contextmanager
def progress(console: Console, *, quiet: bool) -> Iterator[Callable[[Report], None] | None]:
    """What is told how far the run is; nothing where nobody wants to know."""
    if quiet:
        yield None
        return
    pace = Pace()
    if not console.is_terminal or log.is_json():
        said = time.monotonic()

        def tell_often(report: Report) -> None:
            nonlocal said
            pace.see(report)
            now = time.monotonic()
            if now - said >= (OFTEN if report.seconds < 60 else SELDOM):
                said = now
                tell(console, line(report, pace.rate), mark=False)

        yield tell_often
        return

    def show(report: Report) -> None:
        pace.see(report)
        live.update(view(report, pace.rate), refresh=True)

    # What nodes print is drawn above the table if it comes here too, and else goes where it was to go.
    here_too = sys.stdout.isatty()
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=here_too) as live:
        yield show
