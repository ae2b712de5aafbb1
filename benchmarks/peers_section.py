"""The peers' section of RESULTS.md, from ``results/peers.json``: figures, what celerypipe makes of each, targets."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Target, markdown, short, spaced, spread

COLUMNS = ("peer", "workload", "figure", "median", "lowest to highest", "per ping-pong", "note")
RATIO_COLUMNS = ("workload", "figure", "peer")
TARGET_COLUMNS = ("target", "celerypipe as", "celerypipe", "peer", "ratio", "met")
OURS = "celerypipe"

ABOUT = """\
Every peer runs the same no-op (it returns what it got) on the same payload objects, each node in a process of its own,
with the same window (64 messages, where not told otherwise; 8 of the 16 MiB arrays), and its answers are counted in
the same way: by their size, not read. Each repetition starts each peer anew, one after the other; a ratio is taken
within the repetition. `per ping-pong`: how many ping-pongs of 100 B over two Redis lists one message takes, or how
many messages pass in the time of one. celerypipe runs as `one worker` (one process with one slot for all nodes) and as
`a worker a node` (a queue and a process for each, as the peers have). Ray answers with a view of shared memory and so
does celerypipe; the others answer with a copy. An array that a node returns as it got it goes on by reference in
celerypipe, while Ray copies it once a node. `new arrays` stands beside for that: there celerypipe's nodes return a
copy, which then is written to shared memory, so it is copied twice a node.
"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Aim:
    """What celerypipe wants to be beside a peer in one workload."""

    workload: str
    figure: str
    peer: str
    target: Target

    @property
    def text(self) -> str:
        """As the table says it."""
        return f"{self.workload}, {self.figure}: {self.target.text('')} {self.peer}"


JUTURNA, GRAPH = "juturna warp", "Ray compiled graph"
TINY, TINY_ROW = "100 B, one node", "100 B, three nodes in a row"
FRAME, ARRAY_ROW = "640x480x3 uint8, one node", "16 MiB float32, three nodes in a row"
#: Of the issue. Large payloads: through shared memory.
AIMS = (
    Aim(TINY, "one at a time", JUTURNA, Target(0.5, 0.3)),
    Aim(TINY, "in flight", JUTURNA, Target(15, least=True)),
    Aim(TINY, "in flight, window 1,024", JUTURNA, Target(15, least=True)),
    Aim(TINY_ROW, "in flight", GRAPH, Target(1, least=True)),
    Aim(FRAME, "in flight", JUTURNA, Target(5, least=True)),
    Aim(ARRAY_ROW, "in flight", GRAPH, Target(1, least=True)),
)


def lines(result: Row) -> Iterator[str]:
    """The section, below its heading."""
    rows: list[Row] = sorted(result["figures"], key=_place(result["figures"]))
    measured = [row for row in rows if row["median"] is not None]
    yield from (f"{result['made']}, {result['machine']}; {result.get('repetitions', '?')} repetitions.", "")
    yield from (f"* {text}" for text in _versions(result["versions"]))
    if pings := result["yardstick"]["ping-pong µs"]:
        yield f"* ping-pong: {spread(pings)} µs"
    yield from ("", ABOUT)
    if targets := list(_targets(measured)):
        yield from ("### Targets beside peers", "", *markdown(TARGET_COLUMNS, targets), "")
    if ours := list(dict.fromkeys(row["peer"] for row in measured if _is_ours(row))):
        yield from ("### celerypipe ÷ peer", "", *_ratio_lines(measured, ours), "")
    yield from ("### Figures", "", *markdown(COLUMNS, map(_cells, measured)), "")
    if missing := list(_missing(rows)):
        yield from ("Not measured:", "", *(f"* {text}" for text in missing), "")


def _place(rows: Sequence[Row]) -> Any:
    """A key that puts the figures of one workload together, in the order in which they first came."""
    order = {key: number for number, key in enumerate(dict.fromkeys(map(_workload, rows)))}
    return lambda row: order[_workload(row)]


def _workload(row: Row) -> tuple[str, str]:
    return row["workload"], row["figure"]


def _is_ours(row: Row) -> bool:
    return str(row["peer"]).startswith(OURS)


def _versions(versions: Row) -> Iterator[str]:
    for name, told in versions.items():
        if isinstance(told, dict):
            size = f" ({told['size MiB']} MiB)" if told.get("size MiB") else ""
            packages = {key: value for key, value in told.items() if key not in ("size MiB", "install s")}
            yield f"{name}{size}: {', '.join(f'{key} {value}' for key, value in packages.items())}"
        else:
            yield f"{name} {told}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row["peer"],
        row["workload"],
        row["figure"],
        f"{short(row['median'])}{spaced(row['unit'])}",
        f"{short(row['low'])} to {short(row['high'])}",
        short(row["per yardstick"]),
        row.get("note", ""),
    )


def ratios(ours: Row, theirs: Row) -> list[float]:
    """Ours divided by theirs, in each repetition that measured both."""
    pairs = zip(ours.get("values", ()), theirs.get("values", ()), strict=False)
    return [our / their for our, their in pairs if our is not None and their is not None]


def _targets(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    for aim in AIMS:
        alike = [row for row in rows if _workload(row) == (aim.workload, aim.figure)]
        for theirs in (row for row in alike if row["peer"] == aim.peer):
            for ours in filter(_is_ours, alike):
                found = ratios(ours, theirs)
                if found and "through Redis" not in ours["peer"]:
                    unit = spaced(ours["unit"])
                    values = (f"{short(ours['median'])}{unit}", f"{short(theirs['median'])}{unit}")
                    met = aim.target.met(statistics.median(found))
                    yield (aim.text, _setting(ours["peer"]), *values, spread(found), met)


def _ratio_lines(rows: Sequence[Row], settings: Sequence[str]) -> Iterable[str]:
    known = {(row["peer"], *_workload(row)): row for row in rows}
    table = []
    for theirs in rows:
        if _is_ours(theirs):
            continue
        ours = [known.get((setting, *_workload(theirs))) for setting in settings]
        found = [ratios(each, theirs) if each else [] for each in ours]
        cells = [spread(each) if each else "" for each in found]
        if any(cells):
            table.append((theirs["workload"], f"{theirs['figure']}, {theirs['unit']}", theirs["peer"], *cells))
    return markdown((*RATIO_COLUMNS, *map(_setting, settings)), table)


def _setting(peer: str) -> str:
    return peer.removeprefix(OURS).lstrip(", ") or OURS


def _missing(rows: Iterable[Row]) -> Iterator[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["median"] is None:
            where = ", ".join(filter(None, _workload(row)))
            reasons.setdefault((row["peer"], row.get("note", "")), []).append(where)
    for (peer, note), where in reasons.items():
        places = "; ".join(filter(None, where))
        yield f"{peer}{f' ({places})' if places else ''}: {note.removeprefix('not measured: ')}"
