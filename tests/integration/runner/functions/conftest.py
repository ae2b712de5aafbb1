"""Runners of functions, shared by the tests of calls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celerypipe import Runner
from tests.nodes.called import CONFIG
from tests.servers import StartWorker


@pytest.fixture
def runner(shared_worker: StartWorker, redis_url: str) -> Iterator[Runner]:
    """A runner whose functions run on two processes."""
    shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    with Runner(redis_url) as runner:
        yield runner
        runner.close(cancel=True)  # a test that failed may have left a call that never ends


@pytest.fixture(params=["there", "here"])
def either(request: pytest.FixtureRequest, shared_worker: StartWorker, redis_url: str) -> Iterator[Runner]:
    """A runner whose functions run on a worker, and one whose functions run here."""
    if request.param == "there":
        shared_worker("calls", pool="prefork", concurrency=2, config=CONFIG)
    with Runner(redis_url) if request.param == "there" else Runner(local=True) as runner:
        yield runner
