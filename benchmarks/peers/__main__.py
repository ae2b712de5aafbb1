"""Measure celerypipe and its peers one after another, each beside ping-pong: ``python -m benchmarks.peers [names]``.

Prints tables, writes ``benchmarks/results/peers.json``, from which ``python -m benchmarks.results`` makes a section of
RESULTS.md. A peer that cannot be installed or started is a line in it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks import peers_section
from benchmarks.peers.findings import Findings, significant
from benchmarks.peers.processes import NoAnswerError, Script, redis
from benchmarks.peers.script import LIMIT
from benchmarks.peers.venvs import HOME, NAMES, ROOT, Environment, NotInstalledError, environment
from benchmarks.peers.workloads import WORKLOADS
from benchmarks.peers.yardstick import PingPong

RESULT = ROOT / "benchmarks" / "results" / "peers.json"
START_LIMIT = 90.0


def measure(name: str, place: Environment, findings: Findings, repetition: int) -> None:
    """Every workload of every variant of one peer, once, each beside the yardstick."""
    with redis() as url:
        yardstick = PingPong(url)
        log = HOME / f"{name}.log"
        script = Script(place.python, name, url, log)
        try:
            for index, peer in enumerate(script.answer(START_LIMIT)["peers"]):
                for number in peer["workloads"]:
                    workload = WORKLOADS[number]
                    if not findings.lost(peer["name"], workload.name, workload.figure):
                        ping = yardstick.measure()
                        answer = script.ask({"peer": index, "workload": number}, LIMIT + 10)
                        findings.add(answer, ping, repetition)
        except NoAnswerError as fault:
            findings.miss(name, f"{fault}; its log: {log.relative_to(ROOT)}")
        finally:
            script.close()
            yardstick.close()
            findings.pings += map(significant, yardstick.values)


def environments(names: Iterable[str], findings: Findings) -> dict[str, Environment]:
    """Where the peers live; one that cannot be installed is a line in the results."""
    found = {}
    for name in names:
        try:
            found[name] = place = environment(name)
        except NotInstalledError as fault:
            findings.miss(name, f"not installed: {fault}")
            print(f"  {name}: {fault}", flush=True)
        else:
            if place.size_mib:
                print(f"  {name}: {place.size_mib} MiB, {place.seconds:.0f} s to install", flush=True)
    return found


def machine() -> str:
    """What it ran on."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which peers; all unless named: {', '.join(NAMES)}")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, help=f"default: {RESULT.relative_to(ROOT)}, if all are measured")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if options.output is None and not options.names:
        options.output = RESULT  # a part of the peers does not take the place of all of them
    return options


def main() -> None:
    """Install, measure, print, write."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    findings = Findings()
    places = environments(options.names or NAMES, findings)
    try:
        for repetition in range(options.repetitions):
            for name, place in places.items():
                begin = time.monotonic()
                measure(name, place, findings, repetition)
                spent = time.monotonic() - begin
                print(f"  {name}: {repetition + 1} of {options.repetitions}, {spent:.0f} s", flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    result = {
        "made": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": machine(),
        "repetitions": options.repetitions,
        "versions": {name: told(place) for name, place in places.items()},
        "yardstick": {"ping-pong µs": findings.pings},
        "figures": findings.to_list(),
    }
    print("\n".join(peers_section.lines(result)))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def told(place: Environment) -> dict[str, object]:
    """What the results say of an environment."""
    size = {"size MiB": place.size_mib, "install s": round(place.seconds)} if place.size_mib else {}
    return {**size, **place.versions}


if __name__ == "__main__":
    main()
