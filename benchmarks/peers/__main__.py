"""Measure the peers one after another, each beside the ping-pong yardstick: ``python -m benchmarks.peers [names]``.

Prints a table, writes ``benchmarks/results/peers.json``. A peer that cannot be installed or started is a line in it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import statistics
import sys
from pathlib import Path
from typing import Any

import redis as redis_py

from benchmarks.peers.processes import NoAnswerError, Script, redis
from benchmarks.peers.script import LIMIT
from benchmarks.peers.venvs import HOME, RECIPES, ROOT, NotInstalledError, environment
from benchmarks.peers.workloads import WORKLOADS
from benchmarks.peers.yardstick import PingPong

RESULT = ROOT / "benchmarks" / "results" / "peers.json"
START_LIMIT = 90.0

Row = dict[str, Any]


def measure(name: str, python: Path, repetitions: int) -> tuple[list[Row], list[float]]:
    """Every workload of every variant of one peer, repetition after repetition; figures, and the yardstick's."""
    found: dict[tuple[str, int], Row] = {}
    with redis() as url:
        yardstick = PingPong(url)
        log = HOME / f"{name}.log"
        script = Script(python, name, url, log)
        try:
            variants = script.answer(START_LIMIT)["peers"]
            for repetition in range(repetitions):
                print(f"  {name}: repetition {repetition + 1} of {repetitions}", flush=True)
                for index, variant in enumerate(variants):
                    for workload in range(len(WORKLOADS)):
                        row = found.setdefault((variant, workload), {})
                        if "reason" not in row:
                            ping = yardstick.measure()
                            add(row, script.ask({"peer": index, "workload": workload}, LIMIT + 10), ping)
        except NoAnswerError as fault:
            found["", -1] = missing(name, f"{fault}; its log: {log.relative_to(ROOT)}")
        finally:
            script.close()
            yardstick.close()
    return [finished(row) for row in found.values()], yardstick.values


def add(row: Row, answer: Row, ping: float) -> None:
    """Put one repetition's value to the others."""
    value = answer.pop("value", None)
    row.update(answer)
    if value is not None:
        row.setdefault("values", []).append(value)
        # How many ping-pongs one message takes; or how many messages pass in the time of one.
        row.setdefault("ratios", []).append(value / ping if row["unit"] == "µs" else value * ping / 1e6)


def missing(name: str, reason: str) -> Row:
    """A line for what was not measured."""
    return {"peer": name, "workload": "", "figure": "", "unit": "", "reason": reason}


def finished(row: Row) -> Row:
    """A figure as it is written: median, lowest, highest; or why there is none."""
    values, ratios = row.pop("values", []), row.pop("ratios", [])
    numbers = {"median": None, "low": None, "high": None, "per yardstick": None}
    if values:
        numbers = {
            "median": significant(statistics.median(values)),
            "low": significant(min(values)),
            "high": significant(max(values)),
            "per yardstick": significant(statistics.median(ratios)),
        }
    reason = row.pop("reason", "")
    note = "; ".join(part for part in (f"not measured: {reason}" if reason else "", row.pop("note", "")) if part)
    return row | numbers | {"note": note}


def significant(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def table(result: Row) -> str:
    """What is printed."""
    lines = ["| peer | workload | figure | median | lowest to highest | per ping-pong |", "|---|---|---|---|---|---|"]
    for row in result["figures"]:
        numbers = f"– | {row['note']} | –"
        if row["median"] is not None:
            numbers = f"{row['median']:g} | {row['low']:g} to {row['high']:g} | {row['per yardstick']:g}"
        lines.append(f"| {row['peer']} | {row['workload']} | {row['figure']} {row['unit']} | {numbers} |")
    values = result["yardstick"]["ping-pong µs"]
    if values:
        lines.append(f"\nping-pong: {statistics.median(values):.0f} µs ({min(values):.0f} to {max(values):.0f})")
    return "\n".join(lines)


def machine() -> str:
    """What it ran on."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> None:
    """Install, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which peers; all unless named: {', '.join(RECIPES)}")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    unknown = set(options.names) - set(RECIPES)
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    versions: Row = {"redis-py": redis_py.__version__}
    figures: list[Row] = []
    pings: list[float] = []
    for name in options.names or RECIPES:
        try:
            place = environment(name)
        except NotInstalledError as fault:
            figures.append(finished(missing(name, f"not installed: {fault}")))
            print(f"  {name}: {fault}", flush=True)
            continue
        print(f"  {name}: {place.size_mib} MiB, {place.seconds:.0f} s to install", flush=True)
        versions[name] = {"size MiB": place.size_mib, "install s": round(place.seconds), **place.versions}
        rows, values = measure(name, place.python, options.repetitions)
        figures += rows
        pings += [significant(value) for value in values]
    result = {
        "made": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions,
        "yardstick": {"ping-pong µs": pings},
        "figures": figures,
    }
    print(table(result))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
