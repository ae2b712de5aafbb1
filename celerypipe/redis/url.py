"""An address as text, read: the only reader there is, for runner, commands and workers.

::

    redis://[[USER]:PASSWORD@]HOST[:6379][/DATABASE]      also valkey://
    rediss://…                                            the same with TLS; also valkeys://
    unix://[[USER]:PASSWORD@]/PATH[?db=DATABASE]          also kombu's redis+socket://, with ?virtual_host=
    sentinel://[[USER]:PASSWORD@]HOST[:26379][,HOST…]/MASTER[/DATABASE]

User, password and path may hold any character as ``%41``. Behind the question mark stand ``db``, ``username`` and
``password``, the fields of :class:`TLS`, and the Sentinels' own user and password. All else that redis-py or kombu
take there, such as time limits, celerypipe decides: only one of the two would hear it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote

from celerypipe.errors import ConfigError, did_you_mean
from celerypipe.redis.address import DEFAULT_ADDRESS, TLS, Address, Sentinels
from celerypipe.redis.namespace import VARIABLE
from celerypipe.redis.secret import hidden

SENTINEL_PORT = 26379
#: scheme → the one that we write.
SCHEMES = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "unix",
    "socket": "unix",
    "redis+socket": "unix",
    "sentinel": "sentinel",
}
FORMS = "write redis://host:6379/0 or unix:///path/to.sock"
SENTINEL_FORM = "write sentinel://host:26379,host:26379/MASTER/0, MASTER being the name that the Sentinels know it by"
#: How far a certificate is looked at, as redis-py and as Python's own names have it.
REQUIREMENTS = {
    "required": "required",
    "optional": "optional",
    "none": "none",
    "cert_required": "required",
    "cert_optional": "optional",
    "cert_none": "none",
}
TLS_OPTIONS = tuple(TLS().options())
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_address(text: str) -> Address:
    """Read an address as people, redis-py or kombu write it. :class:`ConfigError` holds no secret."""
    if not isinstance(text, str):
        raise ConfigError(f"a Redis URL is a text, not {type(text).__name__}; {FORMS}")
    text = text.strip()
    scheme, colon, rest = text.partition("://")
    written = SCHEMES.get(scheme.lower()) if colon else None
    if written is None:
        raise ConfigError(f"{hidden(text)!r} is no Redis URL; {FORMS}")
    try:
        return _READERS[written](rest)
    except ValueError as error:
        raise ConfigError(f"{hidden(text)!r}: {error}") from None


class _Parts:
    """What stands in an address, cut at the signs that cut it; nothing of it is unescaped but user and password."""

    def __init__(self, rest: str) -> None:
        if "#" in rest:
            raise ValueError(f"no # may stand in it; {_ESCAPES}")
        if not rest.replace(" ", "").isprintable():
            raise ValueError("a character that cannot be printed stands in it; leave it out, or write it as %0A")
        before, _, query = rest.partition("?")
        authority, slash, path = before.partition("/")
        who, at, self.places = authority.rpartition("@")
        self.path = slash + path
        self.options = _asked(query)
        self.holds_secret = "password=" in query
        if "@" in query or ("@" in path and not (at or not authority)):
            raise ValueError(f"what stands before its @ cannot be read; {_ESCAPES}")
        user, _, password = who.partition(":")
        self.user = self._once("username", unquote(user))
        self.password = self._once("password", unquote(password))

    def _once(self, name: str, written: str) -> str | None:
        """A user or a password, from before the host or from behind the question mark."""
        option = self.options.pop(name, "")
        if option and written and option != written:
            raise ValueError(f"it says {name} twice, and not the same; leave one out")
        return written or option or None

    def database(self, written: str = "") -> int:
        """The number of the database, from the path or from behind the question mark."""
        said = [written, *(self.options.pop(name, "") for name in ("db", "virtual_host"))]
        numbers = {text.strip("/") for text in said} - {""}
        if any(not (number.isascii() and number.isdigit()) for number in numbers):
            raise ValueError(f"a database is a number, as in redis://host:6379/0; {_ESCAPES}")
        if len({int(number) for number in numbers}) > 1:
            raise ValueError("it says two databases; leave one out")
        return int(numbers.pop()) if numbers else 0

    def address(self, takes: Sequence[str], **values: Any) -> Address:
        """Make the address, if nothing is left behind the question mark; ``takes``: what may have stood there."""
        for name in self.options:
            if name == "namespace":
                raise ValueError(f"an address names no namespace; give it in {VARIABLE}")
            if name in TLS_OPTIONS:
                raise ValueError(f"{name}: ssl_ options need rediss://, with two s")
            near, known = did_you_mean(name, takes), ", ".join(takes)
            if self.holds_secret:  # this may be the end of it, behind an & that was not escaped
                raise ValueError(f"what stands behind its ? cannot be read; write & as %26; options are {known}")
            if near:
                raise ValueError(f"unknown option {name!r}{near}")
            raise ValueError(f"leave {name} out: all but {known} is set by celerypipe itself, on both sides")
        return Address(user=self.user, password=self.password, **values)


_ESCAPES = "in user and password write % as %25, / as %2F, ? as %3F, # as %23, @ as %40"


def _asked(query: str) -> dict[str, str]:
    asked = parse_qsl(query, keep_blank_values=True)
    found = dict(asked)
    if len(found) < len(asked):
        raise ValueError("it says an option twice; leave one out")
    return found


def _socket(rest: str) -> Address:
    parts = _Parts(rest)
    if parts.places or not parts.path.strip("/"):
        raise ValueError("a socket is a path that begins with /, as in unix:///path/to.sock")
    database = parts.database()
    return parts.address(("db", "username", "password"), path=unquote(parts.path), database=database)


def _host(rest: str, tls: bool = False) -> Address:
    parts = _Parts(rest)
    host, port = _read_place(parts.places or DEFAULT_ADDRESS.host, DEFAULT_ADDRESS.port)
    database = parts.database(unquote(parts.path))
    encryption = _encryption(parts.options) if tls else None
    takes = ("db", "username", "password", *(TLS_OPTIONS if tls else ()))
    return parts.address(takes, host=host, port=port, database=database, tls=encryption)


def _encryption(options: dict[str, str]) -> TLS:
    told: dict[str, Any] = {name.removeprefix("ssl_"): options.pop(name) for name in TLS_OPTIONS if name in options}
    if (requirement := told.get("cert_reqs")) is not None:
        if requirement.lower() not in REQUIREMENTS:
            raise ValueError("ssl_cert_reqs is one of required, optional, none")
        told["cert_reqs"] = REQUIREMENTS[requirement.lower()]
    if (checked := told.get("check_hostname")) is not None:
        if checked.lower() not in TRUTH:
            raise ValueError("ssl_check_hostname is true or false")
        told["check_hostname"] = TRUTH[checked.lower()]
    return TLS(**told)


def _sentinel(rest: str) -> Address:
    """kombu has a URL for each Sentinel, with a semicolon between them; what all of them share may stand in any."""
    several = [_Parts(one) for one in re.split(r";(?:sentinel://)?", rest)]
    parts = several[0]
    for other in several[1:]:
        for name in ("user", "password", "path", "options"):
            mine, theirs = getattr(parts, name), getattr(other, name)
            if mine and theirs and mine != theirs:
                raise ValueError(f"its Sentinels do not share {name}; {SENTINEL_FORM}")
            setattr(parts, name, mine or theirs)
    places = [place for each in several for place in each.places.split(",")]
    master, _, number = unquote(parts.path).strip("/").partition("/")
    if not all(places):
        raise ValueError(f"it names no Sentinel; {SENTINEL_FORM}")
    if not master or master.isdecimal():
        raise ValueError(f"it names no master; {SENTINEL_FORM}")
    own = {name: parts.options.pop(f"sentinel_{name}", None) or None for name in ("username", "password")}
    known = Sentinels(
        tuple(_read_place(place, SENTINEL_PORT) for place in places), master, own["username"], own["password"]
    )
    database = parts.database(number)
    takes = ("db", "username", "password", "sentinel_username", "sentinel_password")
    return parts.address(takes, sentinels=known, database=database)


def _read_place(place: str, usual: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]*))(?::(\d*))?", place, re.ASCII)
    if found is None:
        raise ValueError(f"its host and port cannot be read; write host:{usual}, or [::1]:{usual}; {_ESCAPES}")
    host = unquote(found[1] or found[2]) or "localhost"
    if not re.fullmatch(r"[\w.:%-]+", host):
        raise ValueError(f"its host has a character that no host has; {_ESCAPES}")
    port = int(found[3] or usual)
    if not 0 < port < 65536:
        raise ValueError("a port is a number from 1 to 65535")
    return host, port


_READERS: dict[str, Callable[[str], Address]] = {
    "redis": _host,
    "rediss": partial(_host, tls=True),
    "unix": _socket,
    "sentinel": _sentinel,
}
