"""What Celery believes of a task unseen, looked at: its time limits.

Celery gives a task a slot of its pool before it reads the time limits that came with it; where they are none, the slot
is lost for good, and a worker with one slot is deaf from then on.
"""

from __future__ import annotations

from typing import Any

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
