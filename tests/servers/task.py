"""A plain Celery task, as anybody can send one."""

from __future__ import annotations

from typing import Any

from celerypipe.celery.application import app
from celerypipe.redis.url import broker_url


def send_task(url: str, mark: str, queue: str, *arguments: Any) -> None:
    """Send one."""
    with app.connection(broker_url(url)) as connection:
        app.send_task(mark, arguments, queue=queue, connection=connection, retry=False)
