"""The soak in short: random pipelines, random faults, nothing lost and nothing left."""

from __future__ import annotations

import pytest

from tests.servers.command import start
from tests.servers.redis import redis_binary


@pytest.mark.timeout(280)
def test_every_message_is_accounted_for_while_things_break_at_random() -> None:
    redis_binary()
    soak = start("-m", "tests.soak", "--seconds", "1", "--seed", "g").finish(250)  # a short one
    assert soak.returncode == 0, soak.stdout + soak.stderr
    assert "rounds" in soak.stdout
