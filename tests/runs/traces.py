"""What is to be seen of a run from outside: its id, its report, what it has in Redis and in shared memory."""

from __future__ import annotations

from pathlib import Path

import redis

from celerypipe import Report, Runner
from celerypipe.mailbox.blob.shared_memory import ROOT


def run_of(runner: Runner) -> str:
    """The id of the run that it is at."""
    assert runner._current is not None
    return runner._current.course.run_id


def report_of(runner: Runner) -> Report:
    """What its run came to."""
    assert runner.report is not None
    return runner.report


def keys_of(runner: Runner, client: redis.Redis, kind: str) -> list[bytes]:
    """The keys of a kind that its run has, or left behind; others may run in the same Redis, or were killed there."""
    run = runner.report.run if runner.report else run_of(runner)
    return list(client.scan_iter(f"celerypipe:{kind}:{run}*", count=1000))


def memory_of(run: Runner | str) -> Path:
    """The folder in shared memory of a run, or of the one that a runner is at."""
    return ROOT / f"celerypipe-run-{run if isinstance(run, str) else run_of(run)}"
