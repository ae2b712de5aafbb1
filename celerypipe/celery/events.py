"""What a worker tells Flower, without ever being waited for: neither by a Redis that is gone nor by a task.

Celery's heartbeat publishes with endless retries, in the worker's main thread: while Redis is away, such a worker hears
neither SIGTERM nor anything else. One try is enough here; what could not be sent is kept and sent later.

And Celery publishes "task received" before it hands the task to a pool process, which waits for that long. Events
carry the time at which something happened, so a moment later does as well.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher

#: Seconds that the events of tasks wait for others, and for the task to be on its way.
GATHER = 0.01


class Dispatcher(EventDispatcher):  # type: ignore[misc]  # celery ships no types
    """Sends events, each once; those of tasks a moment later, once it knows the event loop."""

    _gathering = False

    def send(self, type: str, *args: Any, retry: bool = False, **fields: Any) -> Any:
        """Send it, or keep it for later; ``retry`` is not heard."""
        return super().send(type, *args, retry=False, **fields)

    def gather(self, hub: Any) -> None:
        """Publish what is kept when that loop has been at it for a moment, not at its next turn."""
        # A pool's thread may have sent it, and only the loop's own sets timers.
        self.on_send_buffered = lambda: hub.call_soon(self._begin_to_gather, hub)

    def _begin_to_gather(self, hub: Any) -> None:
        if not self._gathering:
            self._gathering = True
            hub.call_later(GATHER, self._publish_gathered)

    def _publish_gathered(self) -> None:
        self._gathering = False
        self.flush()


class PatientEvents(Events):  # type: ignore[misc]  # celery ships no types
    """``app.events`` with that dispatcher."""

    dispatcher_cls = Dispatcher


class Patience(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Tell the dispatcher of each new connection the worker's event loop."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, parent: Any) -> None:
        """``parent``: the consumer."""
        if parent.hub is not None and isinstance(parent.event_dispatcher, Dispatcher):
            parent.event_dispatcher.gather(parent.hub)
