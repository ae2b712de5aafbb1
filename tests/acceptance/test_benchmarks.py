"""The benchmark suite as somebody calls it, with a tenth of its messages: it measures, shows, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.servers import ROOT, eventually
from tests.servers.processes import alive, descendants

pytestmark = pytest.mark.usefixtures("redis_url")  # which skips, or under CI fails, where there is no redis-server


def begin(part: str) -> subprocess.Popen[str]:
    """Start a part of the suite in the checkout."""
    command = [sys.executable, "-m", "benchmarks", part, "--quick", "--place", "unix"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_it_shows_a_table_and_writes_nothing() -> None:
    page = ROOT / "benchmarks" / "RESULTS.md"
    before = page.read_bytes()
    with begin("many") as suite:
        out, err = suite.communicate()
    assert suite.returncode == 0, err
    assert "Sixty-four warped nodes in one pipeline" in out
    assert "one message, time per node" in out
    assert page.read_bytes() == before


def test_it_takes_its_processes_along() -> None:
    with begin("tiny") as suite:
        children = eventually(lambda: len(below := descendants(suite.pid)) >= 3 and below, "its server and workers")
        time.sleep(0.5)
        children |= descendants(suite.pid)
        suite.send_signal(signal.SIGINT)
        _, err = suite.communicate()
    assert "Traceback" not in err
    eventually(lambda: not any(map(alive, children)), "the end of its children")
