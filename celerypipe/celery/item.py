"""A Celery task as the item of its queue's list, made without a connection: whoever has one pushes it with the rest.

kombu would open a connection of its own, and wait for an answer after each task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kombu.connection import Connection
from kombu.transport import memory
from kombu.utils.json import dumps

from celerypipe.celery.application import app


class _Channel(memory.Channel):
    """kombu's channel for queues in memory, which keeps what is published last instead."""

    item = ""

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        self.item = dumps(message)  # type: ignore[no-untyped-call]  # kombu's


class _Transport(memory.Transport):
    Channel = _Channel


class Items:
    """Makes the items of tasks, for one thread at a time."""

    def __init__(self) -> None:
        self._channel = Connection(transport=_Transport).channel()  # type: ignore[no-untyped-call]  # kombu's
        self._producer = app.amqp.Producer(self._channel, auto_declare=False)

    def item(self, mark: str, arguments: Sequence[Any], *, queue: str, shown: str) -> str:
        """Return what to push; ``shown``: what Flower and logs show of the arguments."""
        app.send_task(
            mark,
            arguments,
            queue=queue,
            producer=self._producer,
            retry=False,
            ignore_result=True,
            declare=(),  # its queue is a list that is there when something is in it
            argsrepr=shown,
            kwargsrepr="{}",
        )
        return str(self._channel.item)
