"""What is counted of what clients ask of Redis, and for whom."""

from __future__ import annotations

import os
import threading
from contextlib import closing

import pytest
import redis

from benchmarks.places import Server
from benchmarks.witness import Witness

pytestmark = pytest.mark.usefixtures("redis_url")  # which skips, or under CI fails, where there is no redis-server


def test_commands_are_counted_for_who_sends_them_and_those_inside_scripts_are_not() -> None:
    with Server() as server, closing(Witness(server.url("tcp"))) as witness:
        with redis.Redis.from_url(server.url("tcp"), client_name="ours") as client:
            client.ping()
            ((port, name),) = witness.connections([os.getpid()]).items()
            assert name == "ours"
            over = threading.Event()

            def ask() -> None:
                while not over.is_set():
                    client.eval("redis.call('SET', 'a', 1) redis.call('SET', 'b', 1) return 1", 0)

            thread = threading.Thread(target=ask)
            before = client.info("commandstats")
            thread.start()
            counted = witness.commands(0.3)
            over.set()
            thread.join()
            after = client.info("commandstats")
        assert set(counted) == {port}
        asked = after["cmdstat_eval"]["calls"] - before.get("cmdstat_eval", {}).get("calls", 0)
        assert 0 < counted[port] <= asked
        assert witness.everybody() == 0
