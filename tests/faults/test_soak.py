"""The soak in short: random pipelines, random faults, nothing lost and nothing left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.servers import ROOT
from tests.servers.redis import redis_binary


@pytest.mark.timeout(280)
def test_every_message_is_accounted_for_while_things_break_at_random() -> None:
    redis_binary()
    command = [sys.executable, "-m", "tests.soak", "--seconds", "1", "--seed", "g"]  # a short one
    soak = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert soak.returncode == 0, soak.stdout + soak.stderr
    assert "rounds" in soak.stdout
