"""The address of a Redis, as a value: what redis-py, kombu and people are told of it is made of its fields."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any
from urllib.parse import quote

from celerypipe.redis.keys import Names
from celerypipe.redis.namespace import DEFAULT, VARIABLE, named
from celerypipe.redis.secret import HIDDEN


@dataclass(frozen=True, slots=True)
class TLS:
    """How a connection is encrypted; each field is ``ssl_<field>`` in the address. Paths are those of PEM files."""

    cert_reqs: str = "required"
    check_hostname: bool = True
    ca_certs: str | None = None
    ca_path: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    #: That of the key's file.
    password: str | None = field(default=None, repr=False)

    def options(self) -> dict[str, Any]:
        """Return what redis-py's encrypted connections take, be it through redis-py or through kombu."""
        return {f"ssl_{each.name}": getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows where the master is: their hosts and ports, its name among them, and their own user and password."""

    places: tuple[tuple[str, int], ...]
    master: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Where a Redis is, and as whom one comes there.

    Either ``host`` and ``port``, with ``tls`` or without; or ``path``, a unix socket; or ``sentinels``. As text it is
    what may be shown; :attr:`url` holds the password. Read by :func:`celerypipe.redis.url.read_address`.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    sentinels: Sentinels | None = None
    database: int = 0
    user: str | None = None
    password: str | None = None
    tls: TLS | None = None
    #: Whose keys and queues there; no part of the text.
    namespace: str = DEFAULT

    @property
    def names(self) -> Names:
        """What the keys there are called."""
        return named(self.namespace)

    @property
    def url(self) -> str:
        """The address as text, with all that is secret in it: for a process that is to read it again."""
        return self._written(quoted)

    @property
    def shown(self) -> str:
        """The address as text, ``***`` for all that is secret in it."""
        return self._written(lambda secret: HIDDEN)

    def worker_command(self, queue: str) -> str:
        """Return the command that starts a worker of a queue of this Redis; a password is left to who types it."""
        command = f"celery -A celerypipe worker -Q {shlex.quote(queue)}"
        if self.shown != DEFAULT_ADDRESS.shown:  # no option: other users of a machine can read those
            command = f"CELERYPIPE_REDIS_URL={shlex.quote(self.shown)} {command}"
        return command if self.namespace == DEFAULT else f"{VARIABLE}={self.namespace} {command}"

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    def _written(self, secret: Callable[[str], str]) -> str:
        who = credentials(self, secret)
        if self.path:
            return f"unix://{who}{quote(self.path)}?db={self.database}"
        if (known := self.sentinels) is not None:
            own = {"sentinel_username": known.user, "sentinel_password": known.password}
            places = ",".join(place(*each) for each in known.places)
            return f"sentinel://{who}{places}/{quoted(known.master)}/{self.database}{_options(own, secret)}"
        told = {} if self.tls is None else self.tls.options()
        changed = {name: value for name, value in told.items() if value != _USUAL[name]}
        scheme = "redis" if self.tls is None else "rediss"
        return f"{scheme}://{who}{place(self.host, self.port)}/{self.database}{_options(changed, secret)}"


#: Where a Redis is that nobody named.
DEFAULT_ADDRESS = Address("localhost", 6379)

_USUAL = TLS().options()
quoted = partial(quote, safe="")


def credentials(address: Address, secret: Callable[[str], str] = quoted) -> str:
    """Return what stands before the place in a URL, with its ``@``; ``secret``: how a secret is written."""
    if address.password is not None:
        return f"{quoted(address.user or '')}:{secret(address.password)}@"
    return f"{secret(address.user)}@" if address.user is not None else ""  # it may be a password without its colon


def _options(told: Mapping[str, Any], secret: Callable[[str], str]) -> str:
    written = [
        f"{name}={secret(value) if name.endswith('_password') else quote(str(value))}"
        for name, value in told.items()
        if value is not None
    ]
    return f"?{'&'.join(written)}" if written else ""


def place(host: str, port: int) -> str:
    """Return a host and its port as they stand in a URL."""
    written = quote(host, safe=":")
    return f"[{written}]:{port}" if ":" in host else f"{written}:{port}"
