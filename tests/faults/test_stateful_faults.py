"""The worker of a stateful node dies again and again, and the node's results are those of a run without a worker."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from celerypipe import Message, Runner
from tests.faults.test_worker_faults import Reading
from tests.integration.test_warp import warped
from tests.servers import StartWorker

CONFIG = 'imports = ["tests.stateful_nodes"]\n'
#: Messages, and how often a process is killed.
COUNT, KILLS = (5000, 12) if os.environ.get("CELERYPIPE_FAULTS") == "long" else (1200, 3)
NODES = [("RunningSum", {"delay": 0.002}), ("Window", {"delay": 0.002})]


def locally(mark: str, configuration: dict[str, Any], payloads: Any) -> list[Any]:
    """What the node sends where nothing dies."""
    pipeline = warped(mark, "nowhere", configuration={**configuration, "delay": 0.0})
    return [message.payload for message in Runner(local=True).stream(pipeline, map(Message, payloads))]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("node", "configuration"), NODES)
@pytest.mark.parametrize(("pool", "slots"), [("prefork", 2)])
def test_a_state_outlives_every_process_that_kept_it(
    start_worker: StartWorker, redis_url: str, node: str, configuration: dict[str, Any], pool: str, slots: int
) -> None:
    queue = f"state{node.lower()}"
    start_worker(queue, pool=pool, concurrency=slots, config=CONFIG)
    mark = f"tests.stateful_nodes.{node}"
    pipeline = warped(mark, queue, configuration=configuration)
    reading = Reading(Runner(redis_url).stream(pipeline, map(Message, range(COUNT))))
    expected = locally(mark, configuration, range(COUNT))
    for kill in range(1, KILLS + 1):
        reading.wait_for(len(expected) * kill // (KILLS + 1))
        os.kill(reading.out[-1].meta["pid"], signal.SIGKILL)
    assert reading.payloads() == expected
