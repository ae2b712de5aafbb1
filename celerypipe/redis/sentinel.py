"""A Redis behind Sentinels: its URL, read and written.

::

    sentinel://[user:password@]host[:26379][,host[:port]…]/MASTER[/DATABASE][?sentinel_password=…&sentinel_username=…]

User and password are those of Redis; the Sentinels' own, if they want any, stand behind the question mark. kombu has
one URL for each Sentinel, with a semicolon between them, and takes the rest as options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from celerypipe.errors import ConfigError

SCHEME = "sentinel"
PORT = 26379
FORM = "write sentinel://host:26379,host:26379/MASTER/0, MASTER being the name that the Sentinels know it by"
#: What may stand behind the question mark.
OPTIONS = ("sentinel_username", "sentinel_password")
#: Seconds to wait for one Sentinel before the next one is asked.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Where the Sentinels are, and which master they are asked for. ``credentials``: as in the URL, with its ``@``."""

    addresses: tuple[tuple[str, int], ...]
    master: str
    database: int = 0
    credentials: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> Sentinels:
        """Read a URL, in our form or in kombu's; :class:`ConfigError` says what is wrong with it, without secrets."""
        parts = [urlsplit(one) for one in url.split(";")]
        credentials, at, _ = parts[0].netloc.rpartition("@")
        places = [place for part in parts for place in part.netloc.rpartition("@")[2].split(",")]
        shown = f"{SCHEME}://{','.join(places)}{parts[0].path}"
        if not all(places):
            raise ConfigError(f"{shown!r} names no Sentinel; {FORM}")
        master, _, database = parts[0].path.strip("/").partition("/")
        if not master or master.isdecimal():
            raise ConfigError(f"{shown!r} names no master; {FORM}")
        if database and not database.isdecimal():
            raise ConfigError(f"{shown!r}: {database!r} is no database; {FORM}")
        options = parse_qsl(parts[0].query, keep_blank_values=True)
        for name, _ in options:
            if name not in OPTIONS:
                raise ConfigError(f"{shown!r}: unknown option {name!r}; there are {' and '.join(OPTIONS)}")
        addresses = tuple(_address(place, shown) for place in places)
        return cls(addresses, unquote(master), int(database or 0), credentials + at, tuple(options))

    @property
    def user(self) -> tuple[str | None, str | None]:
        """User and password of Redis."""
        name, _, password = self.credentials.removesuffix("@").partition(":")
        return unquote(name) or None, unquote(password) or None

    @property
    def asking(self) -> dict[str, Any]:
        """What redis-py takes to talk to a Sentinel."""
        own = {name.removeprefix("sentinel_"): value for name, value in self.options}
        # redis-py would try a Sentinel that is gone for seconds before it asks the next one.
        return {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE, "retry": Retry(NoBackoff(), 0), **own}

    @property
    def shown(self) -> str:
        """The URL without any secret."""
        return f"{SCHEME}://{','.join(map(_place, self.addresses))}/{self.master}/{self.database}"

    def client_url(self) -> str:
        """Return it in our form."""
        return f"{SCHEME}://{self.credentials}{','.join(map(_place, self.addresses))}{self._end}"

    def broker_url(self) -> str:
        """Return it in kombu's form."""
        return ";".join(f"{SCHEME}://{self.credentials}{_place(each)}{self._end}" for each in self.addresses)

    @property
    def _end(self) -> str:
        return f"/{self.master}/{self.database}" + (f"?{urlencode(self.options)}" if self.options else "")


class Watchers(Sentinel):
    """redis-py's Sentinels, which say in one line that there is no master; theirs is a page."""

    def discover_master(self, service_name: str) -> Any:
        """Return the address of the master."""
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]  # redis-py's
        except MasterNotFoundError:
            raise MasterNotFoundError(f"no Sentinel knows a living master {service_name!r}") from None


def _address(place: str, shown: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        return parts.hostname or "localhost", parts.port or PORT
    except ValueError as error:
        raise ConfigError(f"{shown!r}: {place!r} is no address ({error}); {FORM}") from None


def _place(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
