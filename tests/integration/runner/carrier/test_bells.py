"""How many slots are rung for: more as soon as the work turns out to be worth them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from celerypipe import Runner
from celerypipe.runner.carrier import upkeep
from tests.nodes import called
from tests.servers import StartWorker

#: Seconds without a tick: whoever is rung for meanwhile was not rung for by one.
LONG = 60.0
CONFIG = 'imports = ["tests.nodes.called"]\n'


def test_slots_are_rung_for_at_once(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_worker("calls", pool="prefork", concurrency=4, config=CONFIG)
    monkeypatch.setattr(upkeep, "TICK", LONG)
    unknown, quick, slow, then = (tmp_path / name for name in ("unknown", "quick", "slow", "then"))
    for folder in (unknown, quick, slow, then):
        folder.mkdir()
    with Runner(redis_url) as runner:  # of a function that was not called yet nobody knows how long it takes
        met = [runner.submit(called.meet, number, str(unknown), 4) for number in range(4)]
        assert len({call.result(LONG / 2) for call in met}) == 4
    with Runner(redis_url) as runner:  # and one that was quick so far may take longer from now on
        for number in range(4):
            runner.submit(called.meet, number, str(quick), 1).result(LONG / 2)
        first = runner.submit(called.meet, 0, str(slow), 2)
        others = [runner.submit(called.meet, number, str(then), 4) for number in range(4)]
        time.sleep(0.5)  # so long the slow one takes
        Path(slow, "gone on").touch()
        first.result(LONG / 2)
        assert len({call.result(LONG / 2) for call in others}) == 4
