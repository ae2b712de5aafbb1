"""What happened in a run, node by node."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from celerypipe.runner.table import Column, fitted

#: How a run may be going, or have ended.
State = Literal["running", "stopping", "done", "stopped", "cancelled", "failed"]
#: Seconds of a warm-up that is worth a column.
LEAST_WARMUP = 0.1
#: The columns with a median and a 99th percentile.
TIMES = ("running", "waiting", "transfer")
#: In which colour that is shown.
COLOURS = {"done": "green", "stopped": "yellow", "stopping": "yellow", "cancelled": "yellow", "failed": "red"}


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
    refused by a full link that says so; ``unmatched`` found no partner in a join; ``unfinished`` are neither through
    nor given up: while the run goes on, on their way, and afterwards what it left. ``waiting`` is the time before
    ``update``, ``running`` the time in it, ``transfer`` the rest of the way there and back; of the time of a batch each
    message has its share, and waited for the rest. The longest ``warmup`` of the node, in seconds, is in none of them;
    ``warming``: it warms up on a worker now, and nothing has come back yet.
    ``bytes`` is what went to a worker and came back, before any compression.

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
    unfinished: int = 0
    warmup: float = 0.0
    warming: bool = False

    @property
    def given_up(self) -> int:
        """Messages that it gave up, or a link out of it did."""
        return self.skipped + self.dead + self.dropped + self.unmatched


@dataclass(frozen=True, slots=True)
class QueueReport:
    """The circuit breaker of one queue: how it is, how often it opened, how many messages it gave up at once."""

    queue: str
    circuit: Literal["closed", "open", "half-open"]
    opened: int
    refused: int

    def __str__(self) -> str:
        times = "once" if self.opened == 1 else f"{self.opened} times"
        given_up = f"{self.refused} messages failed without being sent"
        return f"queue {self.queue!r} failed {times}, {given_up}; its circuit is {self.circuit}"


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """The report of a run: its id, how it ended, and what each node did.

    ``run``: The id of the run.
    ``pipeline``: The name of the pipeline.
    ``status``: ``done`` (all messages are out), ``stopped`` (the sources were told to stop, the rest is out),
    ``cancelled`` or ``failed``; of a run that goes on ``running``, or ``stopping``.
    ``seconds``: How long it took.
    ``nodes``: The report of each node; ``report["measure"]`` is that of one.
    ``error``: The text of what ended it.
    ``queues``: The circuit breakers of the queues that its warped nodes run on.
    ``refused``: How much was not signed with our keys, by kind (``message``, ``result``, ``payload``, ``record``).
    ``through``: How many messages of its sources are through all nodes.
    ``total``: Of how many; None if a source does not know how many it has.
    ``stopped_by``: The signal that told its sources to stop.
    ``place``: The message and the worker where the error happened.
    ``explained``: ``celerypipe cache explain`` finds why a message was computed; not so where the Redis of the run ends
    with it, or another one is meant when nobody names one.
    """

    run: str
    pipeline: str
    status: State
    seconds: float
    nodes: tuple[NodeReport, ...]
    error: str = ""
    queues: tuple[QueueReport, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    through: int = 0
    total: int | None = None
    stopped_by: str = ""
    place: str = ""
    explained: bool = False

    def __getitem__(self, name: str) -> NodeReport:
        for one in self.nodes:
            if one.name == name:
                return one
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"<Report of {self.pipeline!r}, run {self.run}: {self.headline}>"

    @property
    def unfinished(self) -> int:
        """Messages on their way; once the run is over, those that it left."""
        return sum(one.unfinished for one in self.nodes)

    @property
    def headline(self) -> str:
        """How it goes or ended, and after how long."""
        so_far = f"{self.seconds:.1f} s" if self.seconds < 120 else long_span(self.seconds)
        if self.status == "running":
            return f"running for {so_far}"
        if self.status == "stopping":
            return f"finishing {counted(self.unfinished)}, after {so_far}"
        return f"{self.status} in {self.seconds:.2f} s"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dataclasses.asdict(self)

    def to_json(self, indent: int | None = None) -> str:
        """Return it as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text.assemble(f"{self.pipeline}: ", (self.headline, COLOURS.get(self.status, "")))
        table = fitted(list(_columns(self.nodes, over=self.status not in ("running", "stopping"))), console, options)
        yield table
        timed = any(column.header in TIMES for column in table.columns)
        for line in (f"run {self.run}" + "; times are p50 / p99" * timed + self._refusals(), *self._notes()):
            yield Text(line, "dim")
        if losses := self.losses:
            yield Text(losses, "yellow")

    @property
    def losses(self) -> str:
        """What did not come through, in words; empty if all did."""
        counts = {
            "skipped": sum(one.skipped for one in self.nodes),
            "kept as dead letters": sum(one.dead for one in self.nodes),
            "dropped by full links": sum(one.dropped for one in self.nodes),
            "without a partner": sum(one.unmatched for one in self.nodes),
            "unfinished": self.unfinished if self.status not in ("running", "stopping") else 0,
        }
        return ", ".join(f"{counted(count)} {what}" for what, count in counts.items() if count)

    def _notes(self) -> list[str]:
        """What the result cache was good for, and which circuits opened."""
        hits, size = sum(one.hits for one in self.nodes), sum(one.bytes_saved for one in self.nodes)
        seconds = long_span(sum(one.seconds_saved for one in self.nodes))
        saved = (
            [f"{hits} results came from the result cache: {volume(size)}, {seconds} of computing saved"] if hits else []
        )
        missed = self.explained and any(one.misses for one in self.nodes)
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
        return "\n".join(line.rstrip() for line in str(text).splitlines())


def _columns(nodes: Sequence[NodeReport], *, over: bool) -> Iterator[Column]:
    """Return what went wrong at the nodes, then counts, then times, which give way first."""
    yield Column("node", [Text(one.name) for one in nodes])
    brief = [_red(str(lasting)) if (lasting := _lasting(one)) else "" for one in nodes]
    yield Column("failed", [_failures(one) for one in nodes], brief=brief)
    yield Column("given up", [Text(str(one.given_up or ""), "yellow") for one in nodes])
    yield Column("in", [str(one.received) for one in nodes])
    yield Column("out", [str(one.sent) for one in nodes])
    if any(one.unfinished for one in nodes):
        style = "yellow" if over else ""
        yield Column("unfinished" if over else "at work", [Text(str(one.unfinished or ""), style) for one in nodes], 1)
    if any(one.hit_rate is not None for one in nodes):
        yield Column("cached", [_hits(one) for one in nodes], 2)
    if any(one.queue for one in nodes):
        yield Column("queue", [Text(one.queue) for one in nodes], 3)
    if any(one.warmup >= LEAST_WARMUP for one in nodes):
        yield Column("warm-up", [span(one.warmup) if one.warmup >= LEAST_WARMUP else "" for one in nodes], 4)
    for rank, heading in enumerate(TIMES, start=5):
        if any(cells := [_spans(getattr(one, heading)) for one in nodes]):
            yield Column(heading, cells, rank)


def _lasting(one: NodeReport) -> int:
    """How many attempts failed for good."""
    return max(0, sum(one.failed.values()) - one.retried)


def _failures(one: NodeReport) -> Text | str:
    """Return what failed for good, by kind, and what was tried again."""
    kinds = {kind: count for kind, count in one.failed.items() if count}
    lasting = _lasting(one)
    if not one.retried:
        return _red(", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    if not lasting:
        return Text(f"{one.retried} retried")
    if len(kinds) == 1:
        return _red(f"{lasting} {next(iter(kinds))}, {one.retried} retried")
    return _red(", ".join(f"{count} {kind}" for kind, count in kinds.items()) + f"; {one.retried} of them retried")


def _red(text: str) -> Text:
    return Text(text, "bold red")


def _spans(times: Quantiles | None) -> str:
    return f"{span(times.p50)} / {span(times.p99)}" if times else ""


def _hits(one: NodeReport) -> str:
    return "" if one.hit_rate is None else f"{one.hits} ({one.hit_rate:.0%})"


def counted(count: int) -> str:
    """Return ``1 message``, ``2 messages``."""
    return "1 message" if count == 1 else f"{count:,} messages"


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
