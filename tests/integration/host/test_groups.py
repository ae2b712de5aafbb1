"""A node group: nodes in a worker elsewhere that are made, configured, started, asked, stopped and removed by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from celerypipe import HostError, Manager, Message, NodeFailed
from celerypipe.host.hosted import HostedWorkers
from celerypipe.redis.connection import Client
from tests.servers import eventually
from tests.servers.host import running_host


@pytest.fixture(scope="module")
def manager(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with running_host(tmp_path_factory.mktemp("groups"), redis_url) as host, Manager(redis_url) as manager:
        manager.hosts[host.name].start("hgpu", count=1, pool="solo")
        yield manager


@pytest.fixture
def group(manager: Manager) -> Iterator[HostedWorkers]:
    (found,) = manager.workers()
    yield found
    for node in found.nodes():
        if node.state == "running":
            node.stop()
        found.remove_node(node)


def test_a_node_goes_through_its_life_by_its_handle(group: HostedWorkers) -> None:
    before = group.status()
    node = group.create_node("tests.nodes.remote.Picky", name="picky", bad=[3])
    assert (node.state, dict(node.configuration)) == ("initialized", {"bad": [3]})
    for _ in range(2):
        node.start()
        assert [message.payload for message in node.ask(Message(1))] == [1]
        node.stop()
    assert node.state == "stopped"
    node.configure(bad=[1])
    assert node.state == "configured"
    node.initialize()
    node.start()
    with pytest.raises(NodeFailed, match="1 is not to my taste") as failed:
        node.ask(Message(1))
    assert "in update" in failed.value.remote_traceback
    assert [message.payload for message in node.ask(Message(3, meta={"a": 1}))] == [3]
    assert [each.pid for each in group.status()] == [each.pid for each in before], "nothing was restarted"


def test_it_holds_several_nodes_and_gives_them_back_one_by_one(group: HostedWorkers) -> None:
    first = group.create_node("tests.nodes.remote.Echo")
    second = group.create_node("tests.nodes.remote.Echo")
    assert {node.name for node in group.nodes()} == {first.name, second.name}
    group.remove_node(first)
    assert [node.name for node in group.nodes()] == [second.name]
    second.start()
    assert second.ask(Message(2))[0].meta["pid"] == group.status()[0].pid
    with pytest.raises(HostError, match="has no node"):
        first.start()


def test_an_order_that_makes_no_sense_is_an_error_with_node_and_state(group: HostedWorkers) -> None:
    node = group.create_node("tests.nodes.remote.Echo", name="echo")
    with pytest.raises(HostError, match="cannot ask node 'echo', which is initialized: start it first"):
        node.ask(Message(1))
    with pytest.raises(HostError, match="cannot stop node 'echo', which is initialized: start it first"):
        node.stop()
    node.start()
    with pytest.raises(HostError, match="cannot start node 'echo', which is running: it takes messages already"):
        node.start()
    with pytest.raises(HostError, match="cannot configure node 'echo', which is running: stop it first"):
        node.configure(delay=1.0)
    with pytest.raises(HostError, match="cannot remove node 'echo', which is running: stop it first"):
        group.remove_node(node)
    with pytest.raises(HostError, match="has a node 'echo' already"):
        group.create_node("tests.nodes.remote.Echo", name="echo")


@pytest.mark.parametrize(
    ("mark", "configuration", "said"),
    [
        ("tests.nodes.remote.Eco", {}, r"no node 'tests.nodes.remote.Eco'; did you mean 'tests.nodes.remote.Echo'"),
        ("tasks.other.Node", {}, r'add imports = \["tasks.other"\] to worker_configs/QUEUE.toml there'),
        ("tests.nodes.remote.Echo", {"dela": 1}, "dela"),
    ],
)
def test_a_node_that_cannot_be_made_is_an_error(
    group: HostedWorkers, mark: str, configuration: dict[str, object], said: str
) -> None:
    with pytest.raises(HostError, match=said):
        group.create_node(mark, **configuration)
    assert group.nodes() == []


def test_a_message_that_takes_too_long_is_interrupted(group: HostedWorkers) -> None:
    node = group.create_node("tests.nodes.remote.Nap")
    node.start()
    with pytest.raises(HostError, match="node "):
        node.ask(Message(30.0), timeout=0.2)
    assert node.ask(Message(0.0)), "and the next one is taken"


def test_what_comes_from_a_stranger_is_left_alone(group: HostedWorkers, redis_client: Client) -> None:
    from celerypipe.celery.item import Items
    from celerypipe.worker.group import QUEUE, TASK

    redis_client.lpush(f"{QUEUE}{group.id}", Items().item(TASK, ["nonsense"], queue="x", shown=""))
    assert group.nodes() == []
    eventually(lambda: [line for line in group.logs() if "that is none was refused" in line.text], "a word on it")


def test_of_a_worker_that_died_the_nodes_are_gone_and_new_ones_can_be_made(group: HostedWorkers) -> None:
    node = group.create_node("tests.nodes.remote.Echo")
    os.kill(group.status()[0].pid, signal.SIGKILL)
    with pytest.raises(HostError):
        node.start()
    eventually(lambda: [each.state for each in group.status()] == ["up"], "another worker")
    assert group.nodes() == []


def test_other_workers_are_no_group(manager: Manager, tmp_path: Path) -> None:
    host = next(iter(manager.hosts.values()))
    workers = host.start("hcpu", 2, wait=False)
    with pytest.raises(HostError, match=r"are no node group, which is one worker with one process: host.start"):
        workers.create_node("tests.nodes.remote.Echo")
    workers.stop(drain=False)
