"""The thread that reads replies never waits for a node, whatever the links look like."""

from __future__ import annotations

from collections import Counter

import pytest

from celerypipe import Message, Pipeline, Runner
from celerypipe.definition.pipeline import Link, NodeDefinition
from tests.nodes.remote import CONFIG
from tests.servers import StartWorker


@pytest.mark.timeout(60)
def test_a_drop_link_into_a_join_that_is_full_holds_up_nobody(shared_worker: StartWorker, redis_url: str) -> None:
    shared_worker("tthreads", pool="threads", concurrency=2, config=CONFIG)
    nodes = [
        NodeDefinition(
            name=name,
            type="proc",
            mark="tests.nodes.remote.Echo",
            configuration={"delay": delay},
            warped=True,
            warp_configuration={"queue": "tthreads", "window": window},
        )
        for name, delay, window in (("a", 0.0, 64), ("b", 0.0, 64), ("join", 0.005, 1))
    ]
    links = [Link(source="a", target="join"), Link(source="b", target="join", full="drop")]
    pipeline = Pipeline(name="drop", nodes=nodes, links=links)
    came = Counter(message.payload for message in Runner(redis_url).stream(pipeline, map(Message, range(200))))
    assert set(came) == set(range(200))  # all of a; of b what there was room for
