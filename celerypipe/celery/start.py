"""Says when Celery's worker has installed its signal handlers, so that others can stand in their place."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.utils.dispatch import Signal

#: Sent in the worker's own process before it takes its first task.
handlers_installed = Signal(name="handlers_installed", providing_args=set())


class Start(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Celery installs them when its worker starts, right before the first step of all."""

    def start(self, parent: Any) -> None:
        """Say so."""
        handlers_installed.send(sender=parent)
