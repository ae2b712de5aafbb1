"""One address with every odd character goes through a runner, a worker and commands, and shows no secret."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from celerypipe import Message, Pipeline, Runner
from celerypipe.celery.application import make_app
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.embedded.server import private_folder
from celerypipe.redis.address import Address
from celerypipe.redis.connection import connect
from celerypipe.redis.url import read_address
from tests.nodes.remote import CONFIG
from tests.servers import RedisServer, StartWorker
from tests.servers.command import celerypipe

PASSWORD, QUEUE = "p@s/s#w:r d?%41&=é[;", "odd"


@pytest.fixture
def address() -> Iterator[Address]:
    """A Redis with that password, behind a socket whose folder has a name of that kind."""
    place = private_folder()
    (place / "a b%2F@?#").mkdir()
    server = RedisServer(place / "a b%2F@?#").start()
    with connect(server.url) as client:
        client.config_set("requirepass", PASSWORD)
    yield replace(read_address(server.url), password=PASSWORD, database=3)
    server.remove()
    place.rmdir()


def test_all_of_it_means_the_same_to_everybody(address: Address, start_worker: StartWorker) -> None:
    kombus = address.url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    worker = start_worker(QUEUE, url=kombus, pool="prefork", concurrency=1, config=CONFIG)
    node = NodeDefinition(
        name="there",
        type="proc",
        mark="tests.nodes.remote.Echo",
        warped=True,
        warp_configuration={"queue": QUEUE},
    )
    found = Runner(address.url).stream(Pipeline(name="odd", nodes=[node], links=[]), map(Message, range(50)))
    assert [message.payload for message in found] == list(range(50))
    done = celerypipe("status", "--json", CELERYPIPE_REDIS_URL=address.url)
    assert '"odd"' in done.stdout
    control = make_app({"CELERYPIPE_REDIS_URL": address.url}).control
    asked = [control.inspect(timeout=5.0, limit=1).stats(), control.inspect(timeout=5.0, limit=1).conf()]
    assert all(asked)
    for text in (worker.text(), done.stdout, done.stderr, repr(asked)):
        assert "p@s" not in text
        assert "p%40s" not in text
        assert "%2Fs%23w" not in text
