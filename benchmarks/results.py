"""What is kept: ``results/latest.json``, and ``RESULTS.md`` made from it, ``results/peers.json`` and ``scale.json``.

``python -m benchmarks.results`` makes ``RESULTS.md`` anew without measuring.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import peers_section
from benchmarks.figures import COLUMNS, Figure, Figures, markdown

HERE = Path(__file__).parent
LATEST = HERE / "results" / "latest.json"
PEERS = HERE / "results" / "peers.json"
SCALE = HERE / "results" / "scale.json"
PAGE = HERE / "RESULTS.md"

ABOUT = """\
Each repetition measures a yardstick and the workload one after the other; a ratio is taken within the repetition. The
median and the lowest to highest of the repetitions are shown. Absolute figures are this machine's; the ratios are what
counts. `SET+GET twice` is the payload stored and fetched twice, the least that one no-op node costs by way of Redis;
telling the other process to fetch is not counted. `two bare processes` are redis-py alone, pipelined XADD one way and
XREADGROUP, XACK, XDEL the other, a hundred at a time. A ratio of rates is better above 1, a ratio of times below.

Large payloads go through shared memory, which is what a runner does where all workers are on its machine, or through
Redis (`Runner(url, shared_memory=False)`). `passed on`: the node returns the array that it got, of which only the
reference travels; `made anew`: it returns a copy. Arrays arrive as views; the last one of each run is read and checked.
"""


def head(
    *, seconds: float, repetitions: int, redis_version: str, load: float, each: Mapping[str, float]
) -> dict[str, Any]:
    """What was measured with: versions, machine, command; ``each``: the seconds of each workload."""
    return {
        "date": f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in ("celery", "kombu", "redis", "hiredis")},
        "redis-server": redis_version,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load before": round(load, 2),
        "seconds": round(seconds),
        "seconds of each": {name: round(spent, 1) for name, spent in each.items()},
        "repetitions": repetitions,
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
    }


def keep(facts: dict[str, Any], figures: Figures, failures: Sequence[str], not_yet: Sequence[str]) -> None:
    """Write the JSON, and the page from it."""
    LATEST.parent.mkdir(exist_ok=True)
    data = {"head": facts, "figures": figures.to_list(), "failures": list(failures), "not yet": list(not_yet)}
    LATEST.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page()


def keep_scale(facts: dict[str, Any], figures: Figures) -> None:
    """Write the JSON of ``python -m benchmarks.scale``, and the page."""
    data = {"head": facts, "figures": figures.to_list()}
    SCALE.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page()


def write_page() -> None:
    """Make the page from what was kept last."""
    PAGE.write_text(kept_page(), encoding="utf-8")


def kept_page() -> str:
    """The text of the page, of all that was kept last."""
    return page(json.loads(LATEST.read_text(encoding="utf-8")), _found(PEERS), _found(SCALE))


def page(data: dict[str, Any], peers: dict[str, Any] | None = None, scale: dict[str, Any] | None = None) -> str:
    """The text of RESULTS.md; ``peers``, ``scale``: what ``python -m benchmarks.peers`` and ``.scale`` wrote."""
    facts = data["head"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    lines = [
        "# Results",
        "",
        f"{facts['date']}, Python {facts['python']}, {packages}, redis-server {facts['redis-server']}, "
        f"{facts['system']}, {facts['cores']} cores, load {facts['load before']} before the run.",
        f"Command: `{facts['command']}`; {facts['repetitions']} repetitions, {facts['seconds']} s in all.",
        "",
        ABOUT,
    ]
    figures = Figures(Figure.from_dict(figure) for figure in data["figures"])
    verdicts = Counter(figure.met() for figure in figures.all if figure.target is not None)
    lines += [f"Targets: {', '.join(f'{count} {verdict}' for verdict, count in sorted(verdicts.items()))}.", ""]
    for group, members in figures.groups().items():
        lines += [f"## {group}", "", *markdown(COLUMNS, (figure.cells() for figure in members)), ""]
    if data["failures"]:
        lines += ["## Failed", "", *(f"* {text}" for text in data["failures"]), ""]
    if data.get("not yet"):
        lines += ["## Not there yet", "", *(f"* {text}" for text in data["not yet"]), ""]
    if scale:
        lines += _scale_section(scale)
    if peers:
        lines += ["## Peers", "", *peers_section.lines(peers)]
    return "\n".join(lines).rstrip() + "\n"


def tables(figures: Figures) -> Iterable[Table]:
    """The same for a terminal."""
    for group, members in figures.groups().items():
        table = Table(title=group, title_justify="left")
        for column in COLUMNS:
            table.add_column(column)
        for figure in members:
            table.add_row(*figure.cells())
        yield table


def _scale_section(scale: dict[str, Any]) -> Iterable[str]:
    facts = scale["head"]
    yield "## In large"
    yield ""
    yield f"{facts['date']}, `{facts['command']}`, {facts['repetitions']} repetitions of what is a time, load "
    yield f"{facts['load before']} before the run. Counts and bytes are exact, also on a busy machine; times are not."
    yield ""
    for group, members in Figures(Figure.from_dict(figure) for figure in scale["figures"]).groups().items():
        yield from (f"### {group}", "", *markdown(COLUMNS, (figure.cells() for figure in members)), "")


def _found(path: Path) -> dict[str, Any] | None:
    """What the last whole run wrote there, if there was one."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    write_page()
