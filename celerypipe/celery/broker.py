"""How Celery talks to Redis in our processes: kombu's transport, with one redis-py client for each channel.

kombu builds a client for every operation it does (publish, acknowledge, note what is not acknowledged yet). Half of
what sending a bell costs is that, and the worker pays it again for each task it takes. A client holds no connection
by itself, it takes one out of a pool, so that one of them does for all operations. And each of kombu's channels has a
pool of its own, where a worker has three channels: here those of a process share one, but for what waits for tasks.

And what a stranger pushed onto a queue's list does not end the worker that pops it (:mod:`celerypipe.celery.refused`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

from celery.app.amqp import AMQP
from kombu.connection import Connection as StockConnection
from kombu.transport import redis, virtual
from redis import Redis, RedisError, ResponseError

from celerypipe.celery.refused import keep_apart
from celerypipe.errors import ConfigError
from celerypipe.redis.address import Address, credentials, place
from celerypipe.redis.keys import Names
from celerypipe.redis.secret import hidden
from celerypipe.redis.sentinel import asking
from celerypipe.redis.url import read_address

logger = logging.getLogger("celerypipe.worker")

#: What kombu and Celery raise on a message that is none, or lacks what a task has; none is about the connection.
Malformed = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


class Popper(Redis):
    """A client that remembers what it popped last: if that is no task, it is nowhere else."""

    popped: tuple[bytes, bytes] | None = None
    #: When Redis last answered whether there is anything to pop, on which socket, and its number there; 0: unknown.
    answered = 0.0
    line: Any = None
    line_id = 0

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Return an answer."""
        answer = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name == "BRPOP":
            self.popped = (answer[0], answer[1]) if answer else None
            self.answered = time.monotonic()
            if connection._sock is not self.line:
                self.line, self.line_id = connection._sock, self._id_of(connection)
        return answer

    def _id_of(self, connection: Any) -> int:
        try:
            connection.send_command("CLIENT", "ID")
            return int(connection.read_response())
        except ResponseError:  # this user may not ask
            return 0


class NamespacePopper(Popper, redis.PrefixedStrictRedis):
    """The same in a namespace; what it popped it knows by the queue's own name."""


class Inbound(virtual.Message):
    """What came from a queue or was broadcast, not packed.

    Bells are short, and kombu unpacks at once: a few kilobytes would fill this process' memory.
    """

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        if packing := (payload.get("headers") or {}).get("compression"):
            raise ValueError(f"it is packed ({packing!r}): celerypipe sends no such task, and unpacks none")
        super().__init__(payload, channel, **options)  # type: ignore[no-untyped-call]  # kombu's


class QoS(redis.QoS):
    """What was delivered and is not acknowledged. kombu counts a message for ever whose acknowledgement got lost.

    With one slot the worker is deaf from then on: up, connected, and always at its limit.
    """

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message; where Redis is away, only here.

        It comes again in an hour then, and a bell that comes late is one that nobody needs.
        """
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu's
        except BaseException:  # whatever it was, a shutdown too, this slot is free again; it is raised again
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise


#: Seconds within which Redis answers what asks for tasks, if it answers at all: kombu waits for one each time.
RECENTLY = 2.0
#: Pools of connections that channels share, by what kombu connects to; each lives as long as a channel has it.
POOLS: WeakValueDictionary[str, Any] = WeakValueDictionary()


class Channel(redis.Channel):
    """A channel that keeps its client for as long as its connections, and keeps apart what is no task."""

    QoS = QoS
    Message = Inbound

    _lent: Any = None
    _own: Any = None
    _shared: Any = None

    def __init__(self, *connection: Any, **options: Any) -> None:
        super().__init__(*connection, **options)  # type: ignore[no-untyped-call]  # kombu's
        # The line on which it tried whether Redis is there is for who waits for tasks; most channels only publish.
        self.async_pool.disconnect(inuse_connections=False)

    @property
    def pool(self) -> Any:
        """The connections for what does not wait: those of all channels of this process to the same Redis."""
        own = super().pool
        if self._own is not own:  # kombu makes new ones after a fork, and where connecting failed
            at = self.connection.client
            who = (at.hostname, at.port, at.virtual_host, at.userid, at.password, at.ssl, at.transport_options)
            self._own, self._shared = own, POOLS.setdefault(repr(who), own)
        return self._shared

    def _get_client(self) -> Any:
        return partial(NamespacePopper, global_keyprefix=self.global_keyprefix) if self.global_keyprefix else Popper

    def _brpop_read(self, **options: Any) -> Any:
        """Called when an item was popped; kombu hands it to the worker, and where that fails, the item is lost."""
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # kombu's
        except Malformed as error:
            popped: tuple[bytes, bytes] | None = getattr(self.client, "popped", None)
            if popped is None:
                raise
            self._refuse(*popped, error)
            return None
        finally:
            self.client.popped = None

    def _refuse(self, queue: bytes, item: bytes, error: BaseException) -> None:
        name = queue.decode(errors="replace")
        plain: Any = Redis(connection_pool=self.pool)
        keep_apart(plain, Names.of_broker(self.global_keyprefix).refused(name), name, item, error)
        with suppress(*Malformed):
            tag = json.loads(item)["properties"]["delivery_tag"]
            self.qos.get(tag)  # only what was delivered already would come again, in an hour
            self.basic_ack(tag)  # type: ignore[no-untyped-call]  # kombu's

    def _deliver_fanout_message(self, message: Any, exchange: Any) -> Any:
        """Called with what was broadcast to all workers."""
        try:
            return super()._deliver_fanout_message(message, exchange)  # type: ignore[no-untyped-call]  # kombu's
        except Malformed as error:
            logger.warning("broadcast on %r: no command (%s: %s)", exchange, type(error).__name__, error)
            return None

    def close(self) -> None:
        """Let go of everything. kombu waits for the answer to what it asked last, which may take a second."""
        if self._in_poll and time.monotonic() - self.client.answered < RECENTLY:  # else Redis answers nobody
            with suppress(RedisError, OSError), self.conn_or_acquire() as client:
                client.client_unblock(self.client.line_id)
        super().close()  # type: ignore[no-untyped-call]  # kombu's

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Lend a client for one operation: the same, until kombu makes new connections, as after a fork."""
        if self._lent is None or self._lent.connection_pool is not self.pool:
            self._lent = self.Client(connection_pool=self.pool)
        yield client or self._lent


class SentinelChannel(Channel, redis.SentinelChannel):
    """A channel to the master that Sentinels know."""


class Transport(redis.Transport):
    """kombu's Redis transport with our channel."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """kombu's transport through Sentinels, with our channel."""

    Channel = SentinelChannel


#: kombu's transport → ours.
OURS = {redis.Transport: Transport, redis.SentinelTransport: SentinelTransport}


class Connection(StockConnection):
    """A connection whose transport is one of ours wherever it would be kombu's for Redis.

    Not by the setting ``broker_transport``: kombu does not hear it for the URL of a unix socket.
    """

    def get_transport_cls(self) -> Any:
        """Return the class of the transport."""
        found = super().get_transport_cls()  # type: ignore[no-untyped-call]  # kombu's
        return OURS.get(found, found)

    def as_uri(self, include_password: bool = False, *how: Any, **more: Any) -> str:
        """Return its URL; kombu shows a password where there is none, and a user that may be one."""
        url = str(super().as_uri(True, *how, **more))
        if include_password:
            return url
        try:
            return read_address(url).shown
        except ConfigError:  # one of several Sentinels, without the name of their master
            return hidden(url)

    def info(self) -> dict[str, Any]:
        """Return what ``inspect stats`` and Flower show, without what is secret in it.

        Of a unix socket kombu takes the password for its name; the URLs of other Sentinels it shows as they are.
        """
        found: dict[str, Any] = super().info()  # type: ignore[no-untyped-call]  # kombu's
        found["hostname"] = str(found.get("hostname") or "").rpartition("@")[2]
        found["alternates"] = [hidden(str(each)) for each in found.get("alternates") or ()]
        for name, secret in (("transport_options", "sentinel_kwargs"), ("ssl", "ssl_password")):
            if isinstance(found.get(name), dict):
                found[name] = {key: value for key, value in found[name].items() if key != secret}
        return found


def kombu_form(address: Address) -> dict[str, Any]:
    """Return an address as kombu takes it: a ``url`` that names the place, and what only its options can say."""
    options: dict[str, Any] = {}
    tls: dict[str, Any] | bool = False
    who = credentials(address)
    if address.path:
        url = f"redis+socket://{who}{quote(address.path)}?virtual_host={address.database}"
    elif (sentinels := address.sentinels) is not None:
        options = {"master_name": sentinels.master, "min_other_sentinels": 0, "sentinel_kwargs": asking(sentinels)}
        url = ";".join(f"sentinel://{who}{place(*each)}/{address.database}" for each in sentinels.places)
    else:
        url = replace(address, tls=None).url
        if address.tls is not None:  # kombu encrypts nothing unless it is told how
            url, tls = f"rediss{url.removeprefix('redis')}", address.tls.options()
    if prefix := address.names.broker:
        options["global_keyprefix"] = prefix
    return {"url": url, "ssl": tls, "transport_options": options}


class Broker(AMQP):  # type: ignore[misc]  # celery ships no types
    """``app.amqp`` with that connection."""

    Connection = Connection
