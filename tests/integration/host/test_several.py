"""Several hosts, workers and nodes at once, and nobody is left of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from celerypipe import HostError, Manager, Message
from tests.servers.extent import at_length
from tests.servers.host import LIST, RunningHost, running_host
from tests.servers.processes import alive, descendants

#: Nobody is started again.
ONCE = LIST.replace("attempts = 3", "attempts = 0").replace("most = 2", "most = 5")


@pytest.fixture(scope="module")
def two(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningHost]]:
    folders: list[Path] = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    with running_host(folders[0], redis_url, allowed=ONCE) as one, running_host(folders[1], redis_url) as other:
        yield [one, other]


def test_of_two_hosts_with_two_workers_each_none_is_left(two: list[RunningHost], redis_url: str) -> None:
    with Manager(redis_url) as manager:
        sets = [manager.hosts[host.name].start("hcpu", 2, wait=False) for host in two]
        for each in sets:
            each.wait()
        pids = [state.pid for each in sets for state in each.status()]
        below = set().union(*(descendants(pid) for pid in pids), pids)
        assert len(pids) == 4
        assert all(map(alive, pids))
    assert not any(map(alive, below))


@at_length
def test_of_five_workers_with_four_nodes_each_none_is_left(two: list[RunningHost], redis_url: str) -> None:
    with Manager(redis_url) as manager:
        host = manager.hosts[two[0].name]
        groups = [host.start("hgpu", 1, pool="solo", wait=False) for _ in range(5)]
        for group in groups:
            group.wait()
        pids = [state.pid for group in groups for state in group.status()]
        nodes = [group.create_node("tests.nodes.remote.Echo", delay=0.01) for group in groups for _ in range(4)]
        assert len(nodes) == 20
        for node in nodes:
            node.start()
        for number, node in enumerate(nodes):
            (answer,) = node.ask(Message(number))
            assert (answer.payload, answer.meta["pid"]) == (number, pids[number // 4])
    assert not any(map(alive, pids))


@at_length
def test_closing_says_nothing_of_workers_that_died_before(two: list[RunningHost], redis_url: str) -> None:
    with Manager(redis_url) as manager:
        workers = manager.hosts[two[0].name].start("hcpu", 4)
        pids = [state.pid for state in workers.status()]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    assert not any(map(alive, pids))


def test_several_managers_at_once_get_what_the_list_allows_and_no_more(two: list[RunningHost], redis_url: str) -> None:
    def start(_: int) -> str:
        with Manager(redis_url) as manager:
            try:
                manager.hosts[two[1].name].start("hgpu", 1, keep=True, wait=False)
            except HostError as error:
                return str(error)
            return "started"

    with ThreadPoolExecutor(5) as pool:
        said = sorted(pool.map(start, range(5)))
    assert said[3:] == ["started", "started"]
    assert all("may run 2 workers of queue 'hgpu'" in each for each in said[:3])
    with Manager(redis_url) as manager:
        for each in manager.hosts[two[1].name].workers():
            each.stop(drain=False)
