"""Behind Sentinels the master dies, or is told to be a replica: runs and workers go to the new one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.nodes.remote import CONFIG
from tests.runs.counted import Counted
from tests.servers import POOLS, StartWorker, eventually
from tests.servers.extent import LONG
from tests.servers.sentinels import MASTER, Watched


def kill_the_master(watched: Watched) -> None:
    watched.servers[0].stop()


def demote_the_master(watched: Watched) -> None:
    """It lives on as a replica, with everybody connected to it."""
    watched.ask_sentinel("SENTINEL", "FAILOVER", MASTER)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("harm", [kill_the_master, *([demote_the_master] if LONG else [])])
@pytest.mark.parametrize(("pool", "slots"), POOLS if LONG else [("prefork", 2)])
def test_runs_and_workers_follow_a_failover(
    start_worker: StartWorker, harm: Callable[[Watched], None], pool: str, slots: int
) -> None:
    with Watched() as watched:
        worker = start_worker("over", url=watched.url, pool=pool, concurrency=slots, config=CONFIG)
        counted = Counted(watched.url, "over", worker)
        harm(watched)
        eventually(lambda: b"master" in watched.ask(1, "ROLE"), "the promotion of the replica")
        counted.assert_all_once_in_order()
        assert not any(secret in worker.text() for secret in (watched.password, watched.own))
        worker.stop()
