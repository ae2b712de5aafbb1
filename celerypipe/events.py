"""What a worker tells Flower, without ever waiting for Redis to come back.

Celery's heartbeat publishes with endless retries, in the worker's main thread: while Redis is away, such a worker hears
neither SIGTERM nor anything else. One try is enough here; what could not be sent is kept and sent later.
"""

from __future__ import annotations

from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher


class Dispatcher(EventDispatcher):  # type: ignore[misc]  # celery ships no types
    """Sends events, each once."""

    def send(self, type: str, *args: Any, retry: bool = False, **fields: Any) -> Any:
        """Send it, or keep it for later; ``retry`` is not heard."""
        return super().send(type, *args, retry=False, **fields)


class PatientEvents(Events):  # type: ignore[misc]  # celery ships no types
    """``app.events`` with that dispatcher."""

    dispatcher_cls = Dispatcher
