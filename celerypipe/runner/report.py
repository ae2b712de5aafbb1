"""What happened in a run, node by node."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Columns of the table behind the node and its queue.
HEADINGS = ("in", "out", "failed", "given up", "waiting", "running", "transfer")


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median and 99th percentile, in seconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one node did.

    ``failed`` counts failures by kind (``failed``, ``timeout``, ``lost``, ``codec``, ``config``, ``no_worker``,
    ``circuit``), attempts that were retried included; ``skipped`` and ``dead`` are messages given up; ``dropped`` were
    refused by a full link that says so; ``unmatched`` found no partner in a join. ``waiting`` is the time before
    ``update``, ``running`` the time in it, ``transfer`` the rest of the way there and back. ``bytes`` is what went to a
    worker and came back, before any compression.

    ``hits`` were answered by the result cache, ``misses`` asked for in vain; ``hit_rate`` is None where nothing was
    asked. ``bytes_saved`` and ``seconds_saved`` are what the hits did not have to be computed for: the size of their
    results, and the time that computing them took when it was done.
    """

    name: str
    mark: str
    queue: str
    received: int
    sent: int
    failed: Mapping[str, int]
    retried: int
    skipped: int
    dropped: int
    unmatched: int
    dead: int
    bytes: int
    waiting: Quantiles | None
    running: Quantiles | None
    transfer: Quantiles | None
    hits: int = 0
    misses: int = 0
    hit_rate: float | None = None
    bytes_saved: int = 0
    seconds_saved: float = 0.0


@dataclass(frozen=True, slots=True)
class QueueReport:
    """The circuit breaker of one queue: how it is, how often it opened, how many messages it gave up at once."""

    queue: str
    circuit: Literal["closed", "open", "half-open"]
    opened: int
    refused: int

    def __str__(self) -> str:
        times = "once" if self.opened == 1 else f"{self.opened} times"
        given_up = f"{self.refused} messages were given up at once"
        return f"queue {self.queue!r} failed {times}, {given_up}; its circuit is {self.circuit}"


@dataclass(frozen=True, slots=True)
class Report:
    """One run: its id, how it ended, and what each node did.

    ``status`` is ``done`` (all messages are out), ``stopped`` (the sources were told to stop, the rest is out),
    ``cancelled`` or ``failed``; ``error`` is the text of what ended it. ``seconds`` is its whole length.
    ``queues``: the circuit breakers of the queues that its warped nodes run on. ``refused`` counts by kind what was not
    signed with our keys (``message``, ``result``, ``payload``, ``record``).
    """

    run: str
    pipeline: str
    status: Literal["done", "stopped", "cancelled", "failed"]
    seconds: float
    nodes: tuple[NodeReport, ...]
    error: str = ""
    queues: tuple[QueueReport, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NodeReport:
        for one in self.nodes:
            if one.name == name:
                return one
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dataclasses.asdict(self)

    def to_json(self, indent: int | None = None) -> str:
        """Return it as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def __rich__(self) -> Table:
        table = Table(
            title=Text(f"{self.pipeline}: {self.status} in {self.seconds:.2f} s", "table.title"),
            caption=Text(
                "\n".join([f"run {self.run}; times are p50 / p99" + self._refusals(), *self._notes()]), "table.caption"
            ),
            title_justify="left",
            caption_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("node", no_wrap=True)
        table.add_column("queue", no_wrap=True)
        cached = any(one.hit_rate is not None for one in self.nodes)
        for heading in (*HEADINGS[:2], *(("cached",) if cached else ()), *HEADINGS[2:]):
            table.add_column(heading, justify="right", no_wrap=heading != "failed")
        for one in self.nodes:
            failed = ", ".join(f"{count} {kind}" for kind, count in one.failed.items() if count)
            given_up = one.skipped + one.dead + one.dropped + one.unmatched
            table.add_row(
                Text(one.name),
                Text(one.queue),
                str(one.received),
                str(one.sent),
                *((_hits(one),) if cached else ()),
                failed + (f" ({one.retried} retried)" if one.retried else ""),
                str(given_up or ""),
                *(f"{span(q.p50)} / {span(q.p99)}" if q else "" for q in (one.waiting, one.running, one.transfer)),
            )
        return table

    def _notes(self) -> list[str]:
        """What the result cache was good for, and which circuits opened."""
        hits, size = sum(one.hits for one in self.nodes), sum(one.bytes_saved for one in self.nodes)
        seconds = long_span(sum(one.seconds_saved for one in self.nodes))
        saved = [f"the result cache knew {hits} results: {volume(size)}, {seconds} of computing"] if hits else []
        missed = any(one.misses for one in self.nodes)
        why = [f"why a message was computed: celerypipe cache explain {self.run} NODE MESSAGE"] if missed else []
        return [*saved, *why, *(str(each) for each in self.queues if each.opened)]

    def _refusals(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in self.refused.items())
        return f"; refused for their signature: {counts}" if counts else ""

    def table(self, width: int = 120) -> str:
        """Return it as a table of text."""
        console = Console(file=io.StringIO(), width=width)
        console.print(self)
        text = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
        return str(text).rstrip()


def _hits(one: NodeReport) -> str:
    return "" if one.hit_rate is None else f"{one.hits} ({one.hit_rate:.0%})"


def volume(size: float) -> str:
    """Write a number of bytes with a unit that suits it: ``512 B``, ``3.4 MB``."""
    if size < 1000:
        return f"{size:.0f} B"
    power = min(3, int(math.log10(size) / 3))
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB')[power - 1]}"


def span(seconds: float) -> str:
    """Write a duration with a unit that suits it: ``12 µs``, ``3.4 ms``, ``1.25 s``."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def long_span(seconds: float) -> str:
    """Write a duration as :func:`span` does, and a long one in minutes, hours or days."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return span(seconds)
