"""Nodes that hold the interpreter lock, as C code does that never lets go of it: their processes live all the same."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import pytest

from celerypipe import Message, Runner
from celerypipe.redis import keys
from tests.nodes.remote import CONFIG
from tests.runs.pipelines import warped
from tests.runs.reading import Reading
from tests.servers import StartWorker, eventually
from tests.servers.processes import monitors_of

#: Longer than a heartbeat lasts, and than it takes until who is not heard at all counts as dead.
SECONDS = (keys.HEARTBEAT_TTL + keys.MISSED_IN_SILENCE) / 1000 + 1.5


def test_a_message_that_holds_the_lock_for_long_runs_once_while_others_are_free(
    start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    """Two slots of a prefork worker, and two solo workers; the one that tells of the first is killed on the way."""
    first = start_worker("lockfork", pool="prefork", concurrency=2, config=CONFIG)
    for _ in range(2):
        start_worker("locksolo", pool="solo", config=CONFIG)
    readings = []
    for queue in ("lockfork", "locksolo"):
        node = {"name": queue, "diary": str(tmp_path / queue), "grips": ["hold"], "seconds": SECONDS}
        pipeline = warped("tests.nodes.remote.Trial", queue, configuration=node)
        readings.append(Reading(Runner(redis_url).stream(pipeline, [Message("hold")])))
    for queue in ("lockfork", "locksolo"):
        eventually((tmp_path / queue).exists, "a message that holds the lock")
    (monitor,) = monitors_of(first.process.pid)
    os.kill(monitor, signal.SIGKILL)
    assert [reading.payloads() for reading in readings] == [["hold"], ["hold"]]
    for queue in ("lockfork", "locksolo"):
        assert (tmp_path / queue).read_text() == f"{queue} hold\n"


def test_a_run_lives_on_while_its_own_process_holds_the_lock_for_longer_than_its_lease(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "RUN_TTL", 1_500)
    start_worker("lockrun", pool="solo", config=CONFIG)
    diary = tmp_path / "diary"
    reading = Reading(
        Runner(redis_url).stream(
            warped("tests.nodes.remote.Nap", "lockrun", configuration={"diary": str(diary)}), [Message(5.0)]
        )
    )
    eventually(lambda: diary.exists() and diary.read_text(), "a message in update")
    began = time.monotonic()
    ctypes.PyDLL(None).usleep(4_000_000)
    assert time.monotonic() - began > 3.5
    assert reading.payloads() == [5.0]
    assert diary.read_text() == "5.0\n"  # it was neither interrupted nor run again
