"""A worker that is up, says so, and never takes a task again: the symptom, and the watchdog that ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from tests.servers import StartWorker, Workplace, eventually
from tests.servers.proxy import Proxy
from tests.servers.redis import TunedRedis
from tests.servers.task import send_task

#: kombu does not look whether its connection still lives, as before its 5.6.
CONFIG = """
imports = ["tests.nodes.remote", "{watchdog}"]
worker_pool = "prefork"
worker_concurrency = 1
[broker_transport_options]
health_check_interval = 3600
"""
HASTY = "from celerypipe.worker import presence, watchdog\nwatchdog.DEAF_AFTER = 1.0\npresence.LOOK = 0.2\n"
BLIND = "from celerypipe.worker import presence, watchdog\nwatchdog.DEAF_AFTER = 1e9\npresence.LOOK = 0.2\n"


def test_on_a_line_that_went_silent_a_worker_is_up_and_deaf_and_the_watchdog_ends_it(
    start_worker: StartWorker, workplace: Workplace, tmp_path: Path
) -> None:
    server = TunedRedis().start()
    workplace.module("hasty", HASTY)
    workplace.module("blind", BLIND)
    workplace.config("watched", CONFIG.format(watchdog="hasty"))
    workplace.config("unwatched", CONFIG.format(watchdog="blind"))
    try:
        with Proxy(server.folder / "redis.sock") as proxy, server.client() as client:
            watched, unwatched = (
                start_worker(queue, cwd=workplace.folder, url=proxy.url) for queue in ("watched", "unwatched")
            )
            # A line that is made only afterwards would pass.
            eventually(lambda: len(_asking(client)) == 2, "both workers to ask for tasks")
            proxy.swallow()
            client.ping()  # by its answer Redis has read what passed before
            eventually(lambda: not _asking(client), "the end of what the workers asked last")
            for queue in ("watched", "unwatched"):
                send_task(server.url, "tests.nodes.remote.Echo", queue)
            heartbeat = keys.USUAL.heartbeat(*unwatched.presence["id"].split(f".{unwatched.presence['pid']}."))

            assert watched.wait_for_end() == 75
            assert "this worker is deaf" in watched.text()
            client.delete(heartbeat)
            eventually(lambda: client.exists(heartbeat), "its heartbeat")
            assert unwatched.process.poll() is None, "the symptom: it is up, it says that it lives"
            assert client.llen("unwatched") == 1, "and does not take its task"
            assert client.llen("watched") == 1, "that of the other waits for the next worker"
            unwatched.kill()
    finally:
        server.remove()


def _asking(client: Client) -> list[Any]:
    """The connections on which Redis still has to answer: what it would pop for them now would be lost."""
    found: Any = client.client_list()
    return [each for each in found if "b" in each["flags"]]
