"""A Redis behind Sentinels, as redis-py asks them for it."""

from __future__ import annotations

from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from celerypipe.redis.address import Sentinels

#: Seconds to wait for one Sentinel before the next one is asked.
PATIENCE = 1.0


def asking(sentinels: Sentinels) -> dict[str, Any]:
    """Return what redis-py takes to talk to a Sentinel, be it through redis-py or through kombu."""
    own = {"username": sentinels.user, "password": sentinels.password}
    # redis-py would try a Sentinel that is gone for seconds before it asks the next one.
    patience = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE, "retry": Retry(NoBackoff(), 0)}
    return {**patience, **{name: value for name, value in own.items() if value is not None}}


class Watchers(Sentinel):
    """redis-py's Sentinels, which say in one line that there is no master; theirs is a page."""

    def discover_master(self, service_name: str) -> Any:
        """Return the address of the master."""
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]  # redis-py's
        except MasterNotFoundError:
            raise MasterNotFoundError(f"no Sentinel knows a living master {service_name!r}") from None
