"""What Celery believes of a task unseen, looked at: its time limits, and that it is not packed.

Celery gives a task a slot of its pool before it reads the time limits that came with it; where they are none, the slot
is lost for good, and a worker with one slot is deaf from then on.
"""

from __future__ import annotations

from typing import Any

import kombu.compression
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request


class CheckedRequest(Request):  # type: ignore[misc]  # celery ships no types
    """A request whose time limits are two numbers, or none."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        limits = self.time_limits
        fine = isinstance(limits, list | tuple) and len(limits) == 2
        if not fine or not all(limit is None or isinstance(limit, int | float) for limit in limits):
            raise InvalidTaskError(f"timelimit must be two numbers, not {limits!r}")


def refuse_packed_tasks() -> None:
    """Unpack no task: bells are short, and a few kilobytes that somebody packed would fill this process' memory."""

    def unpack(_: bytes) -> bytes:
        raise ValueError("a packed task: celerypipe sends none, and unpacks none")

    for way in kombu.compression.encoders():  # type: ignore[no-untyped-call]  # kombu's
        encoder, name = kombu.compression.get_encoder(way)  # type: ignore[no-untyped-call]
        kombu.compression.register(encoder, unpack, name)  # type: ignore[no-untyped-call]
