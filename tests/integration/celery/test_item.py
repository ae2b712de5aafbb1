"""A task that is made without a connection is the one that Celery pushes itself."""

from __future__ import annotations

import json
from typing import Any

from celerypipe.celery.application import app
from celerypipe.celery.broker import kombu_form
from celerypipe.celery.item import Items
from celerypipe.redis.connection import Client
from celerypipe.redis.url import read_address

#: What is new in each task: ids.
FRESH = {"id", "root_id", "correlation_id", "delivery_tag"}


def without_ids(item: str | bytes) -> Any:
    """What an item says, but for what is new in each."""
    return json.loads(item, object_hook=lambda found: {name: found[name] for name in found if name not in FRESH})


def test_it_is_what_celery_would_push(redis_client: Client, redis_url: str) -> None:
    arguments, queue = [[1, 1], "run", "node", 0, "token"], "made-elsewhere"
    with app.connection_for_write(**kombu_form(read_address(redis_url))) as connection:
        app.send_task(
            "tests.mark",
            arguments,
            queue=queue,
            connection=connection,
            retry=False,
            ignore_result=True,
            declare=(),
            argsrepr="(a bell)",
            kwargsrepr="{}",
        )
    pushed = redis_client.rpop(queue)
    assert isinstance(pushed, bytes)
    items = Items()
    made = [items.item("tests.mark", arguments, queue=queue, shown="(a bell)") for _ in range(2)]
    assert [without_ids(item) for item in made] == [without_ids(pushed)] * 2
    assert len({json.loads(item)["properties"]["delivery_tag"] for item in made}) == 2
