"""RESULTS.md as it is made from what was measured: the peers' section, and what is kept in the checkout."""

from __future__ import annotations

import json
from typing import Any

from benchmarks import peers_section, results
from benchmarks.peers.findings import Findings
from benchmarks.peers.processes import SEMAPHORE

TINY = {"workload": "100 B, one node", "figure": "one at a time", "unit": "µs"}


def section(findings: Findings) -> str:
    """The section of a run that found this."""
    result: dict[str, Any] = {
        "made": "2026-11-21",
        "machine": "Linux, 2 cores",
        "repetitions": 2,
        "versions": {"celerypipe": {"celery": "5.7.0"}, "juturna": {"size MiB": 238, "install s": 9, "grpcio": "1.76"}},
        "yardstick": {"ping-pong µs": findings.pings},
        "figures": findings.to_list(),
    }
    return "\n".join(peers_section.lines(json.loads(json.dumps(result))))


def test_a_ratio_is_taken_within_the_repetition() -> None:
    findings = Findings()
    for repetition, (ours, theirs) in enumerate([(100.0, 400.0), (300.0, 1000.0), (500.0, 800.0)]):
        findings.add({**TINY, "peer": "celerypipe, one worker", "value": ours}, 100.0, repetition)
        findings.add({**TINY, "peer": "juturna warp", "value": theirs, "note": "its own"}, 100.0, repetition)
    page = section(findings)
    assert "| one worker | 300 µs | 800 µs | 0.30 (0.25 to 0.62) | stretch met |" in page
    assert "| 100 B, one node | one at a time, µs | juturna warp | 0.30 (0.25 to 0.62) |" in page
    assert "| juturna warp | 100 B, one node | one at a time | 800 µs | 400 to 1,000 | 8 | its own |" in page
    assert "juturna (238 MiB): grpcio 1.76" in page


def test_a_repetition_that_is_missing_moves_no_other() -> None:
    findings = Findings()
    findings.add({**TINY, "peer": "celerypipe, one worker", "value": 100.0}, 100.0, 0)
    findings.add({**TINY, "peer": "celerypipe, one worker", "value": 300.0}, 100.0, 1)
    findings.add({**TINY, "peer": "juturna warp", "value": 600.0}, 100.0, 1)
    assert "| 300 µs |" not in section(findings)
    assert "| 200 µs | 600 µs | 0.50 | met |" in section(findings)


def test_what_was_not_measured_is_a_line_with_its_reason() -> None:
    findings = Findings()
    findings.miss("ray", "not installed: no network")
    findings.add({**TINY, "peer": "Dask actor", "reason": "there is no row"}, 100.0, 0)
    findings.add({**TINY, "peer": "Dask actor", "figure": "in flight", "reason": "there is no row"}, 100.0, 0)
    page = section(findings)
    assert "* ray: not installed: no network" in page
    assert "* Dask actor (100 B, one node, one at a time; 100 B, one node, in flight): there is no row" in page


def test_the_page_is_made_of_what_the_checkout_keeps() -> None:
    page = results.kept_page()
    for heading in ("## Yardsticks", "## Peers", "### Targets beside peers", "### celerypipe ÷ peer", "### Figures"):
        assert heading in page


def test_a_semaphore_is_known_by_the_process_that_made_it() -> None:
    name = SEMAPHORE.fullmatch("sem.hdr27990-1795260259183491789")
    assert name is not None
    assert name[1] == "27990"
    assert SEMAPHORE.fullmatch("sem.mp-a8x_0h") is None
