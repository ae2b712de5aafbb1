"""How Celery talks to Redis in our processes: kombu's transport, with one redis-py client for each channel.

kombu builds a client for every operation it does (publish, acknowledge, note what is not acknowledged yet). Half of
what sending a bell costs is that, and the worker pays it again for each task it takes. A client holds no connection
by itself, it takes one out of its channel's pool, so that one of them does for all operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from celery.app.amqp import AMQP
from kombu.connection import Connection as StockConnection
from kombu.transport import redis


class Channel(redis.Channel):
    """A channel that keeps its client for as long as its connections."""

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Lend a client for one operation."""
        yield client or self._kept_client

    @cached_property
    def _kept_client(self) -> Any:
        return self._create_client()  # type: ignore[no-untyped-call]  # kombu's

    def _disconnect_pools(self) -> None:
        """Called at the end, after a fork and when connecting failed: the next operation starts afresh."""
        super()._disconnect_pools()  # type: ignore[no-untyped-call]  # kombu's
        self.__dict__.pop("_kept_client", None)


class Transport(redis.Transport):
    """kombu's Redis transport with that channel."""

    Channel = Channel


class Connection(StockConnection):
    """A connection whose transport is that one wherever it would be kombu's for Redis.

    Not by the setting ``broker_transport``: kombu does not hear it for the URL of a unix socket.
    """

    def get_transport_cls(self) -> Any:
        """Return the class of the transport."""
        found = super().get_transport_cls()  # type: ignore[no-untyped-call]  # kombu's
        return Transport if found is redis.Transport else found

    def info(self) -> dict[str, Any]:
        """Return what ``inspect stats`` and Flower show: of a unix socket kombu takes the password for its name."""
        found: dict[str, Any] = super().info()  # type: ignore[no-untyped-call]  # kombu's
        found["hostname"] = str(found.get("hostname") or "").rpartition("@")[2]
        return found


class Broker(AMQP):  # type: ignore[misc]  # celery ships no types
    """``app.amqp`` with that connection."""

    Connection = Connection
