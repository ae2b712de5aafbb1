"""When a worker last heard of its queue, and last began a message, as its host reads it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celerypipe.process.activity import VARIABLE, Activity, beside


def test_what_a_worker_and_its_children_write_is_read_by_its_host(tmp_path: Path) -> None:
    path = beside(tmp_path / "gpu-1.log")
    host = Activity.make(path)
    assert host.ago() == (None, None)
    worker = Activity.asked_for({VARIABLE: str(path)})
    worker.answered(time.monotonic() - 60.0)
    pid = os.fork()
    if not pid:
        worker.began()
        os._exit(0)
    os.waitpid(pid, 0)
    polled, message = host.ago()
    assert polled is not None
    assert polled >= 60.0
    assert message is not None
    assert message < 60.0


def test_a_worker_that_still_ends_writes_nothing_into_what_the_next_one_has(tmp_path: Path) -> None:
    path = tmp_path / "gpu-1.activity"
    Activity.make(path)
    before = Activity.asked_for({VARIABLE: str(path)})
    after = Activity.make(path)
    before.began()
    assert after.ago() == (None, None)


def test_without_a_host_or_its_file_nothing_is_amiss(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"")
    for environment in ({}, {VARIABLE: str(tmp_path / "none")}, {VARIABLE: str(tmp_path / "short")}):
        alone = Activity.asked_for(environment)
        alone.began()
        alone.answered(1.0)
        assert None not in alone.ago()
