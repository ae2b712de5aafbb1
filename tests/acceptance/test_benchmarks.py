"""The benchmark suite as somebody calls it, with a tenth of its messages: it measures, shows, and leaves nothing."""

from __future__ import annotations

import signal
import time

import pytest

from tests.servers import ROOT, eventually
from tests.servers.command import RunningCommand, start
from tests.servers.extent import LONG, at_length
from tests.servers.processes import alive, descendants

pytestmark = pytest.mark.usefixtures("redis_url")  # which skips, or under CI fails, where there is no redis-server


def begin(part: str) -> RunningCommand:
    """Start a part of the suite in the checkout."""
    return start("-m", "benchmarks", part, "--quick", "--place", "unix")


def test_it_shows_a_table_and_writes_nothing() -> None:
    page = ROOT / "benchmarks" / "RESULTS.md"
    before = page.read_bytes()
    suite = begin("three" if LONG else "import").finish()
    assert suite.returncode == 0, suite.stderr
    assert ("Three warped no-op nodes in a row" if LONG else "import celerypipe") in suite.stdout
    assert page.read_bytes() == before


@at_length
def test_what_it_costs_in_large_is_measured() -> None:
    page = ROOT / "benchmarks" / "RESULTS.md"
    before = page.read_bytes()
    ended = start("-m", "benchmarks.scale", "--quick").finish()
    assert ended.returncode == 0, ended.stderr
    for title in ("Workers of other queues", "Far from Redis", "Idle", "Starts"):
        assert title in ended.stdout
    assert page.read_bytes() == before


@pytest.mark.parametrize("words", [("benchmarks", "tiny"), pytest.param(("benchmarks.scale", "idle"), marks=at_length)])
def test_it_takes_its_processes_along(words: tuple[str, ...]) -> None:
    suite = start("-m", *words, "--quick")
    try:
        children = eventually(lambda: len(below := descendants(suite.process.pid)) >= 3 and below, "its processes")
        time.sleep(0.5)
        children |= descendants(suite.process.pid)
        suite.process.send_signal(signal.SIGINT)
    finally:
        ended = suite.finish()
    assert "Traceback" not in ended.stderr
    eventually(lambda: not any(map(alive, children)), "the end of its children")
