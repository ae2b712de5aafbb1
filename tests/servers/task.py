"""A plain Celery task, as anybody can send one."""

from __future__ import annotations

from typing import Any

from celerypipe.celery.application import app
from celerypipe.celery.broker import kombu_form
from celerypipe.redis.url import read_address


def connection_to(url: str) -> Any:
    """Celery's connection to that Redis."""
    return app.connection_for_write(**kombu_form(read_address(url)))


def send_task(url: str, mark: str, queue: str, *arguments: Any) -> None:
    """Send one."""
    with connection_to(url) as connection:
        app.send_task(mark, arguments, queue=queue, connection=connection, retry=False)
