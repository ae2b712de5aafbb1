"""The address of a Redis, as redis-py, kombu and people read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from celerypipe.errors import ConfigError
from celerypipe.redis.sentinel import SCHEME, Sentinels

#: What redis-py takes as a password behind the question mark.
SECRET_OPTION = re.compile(r"([?&](?:\w*password|\w*secret)=)[^&]*")
DEFAULT_REDIS_URL = "redis://localhost:6379/0"


def client_url(url: str) -> str:
    """Return the URL as redis-py writes it; kombu's ``redis+socket://`` becomes ``unix://``."""
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix"):
        parts = urlsplit(url)
        try:
            parts.port  # noqa: B018  # reading it is the check
        except ValueError as error:
            raise ConfigError(f"{without_password(url)!r} is no Redis URL: {error}") from None
        database = parts.path.strip("/")
        if scheme != "unix" and database and not database.isdecimal():
            raise ConfigError(
                f"{without_password(url)!r}: {database!r} is no database; write its number, as in redis://host:6379/0"
            )
        return url
    if scheme == SCHEME:
        return Sentinels.parse(url).client_url()
    if scheme in ("redis+socket", "socket"):
        parts = urlsplit(url)
        database = parse_qs(parts.query).get("virtual_host", ["0"])[0].lstrip("/") or "0"
        credentials = parts.netloc.partition("@")[0] + "@" if "@" in parts.netloc else ""
        return f"unix://{credentials}{parts.path}?db={database}"
    raise ConfigError(f"{without_password(url)!r} is no Redis URL; write redis://host:6379/0 or unix:///path/to.sock")


def broker_url(url: str) -> str:
    """Return the URL as kombu writes it: a unix socket is ``redis+socket://``, each Sentinel has one of its own."""
    if url.startswith(f"{SCHEME}://"):
        return Sentinels.parse(url).broker_url()
    parts = urlsplit(url)
    if parts.scheme == "rediss" and "ssl_cert_reqs" not in parse_qs(parts.query):
        # kombu encrypts nothing unless the URL says something about it.
        return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"
    if parts.scheme != "unix":
        return url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    credentials = parts.netloc.partition("@")[0] + "@" if "@" in parts.netloc else ""
    return f"redis+socket://{credentials}{parts.path}?virtual_host={database}"


def without_password(url: str) -> str:
    """Return the URL as it may be shown: the password, if any, is ``***``, also that of a key."""
    if url.startswith(f"{SCHEME}://"):
        try:
            return Sentinels.parse(url).shown
        except ConfigError:  # whoever reads it will say so
            return f"{SCHEME}://***"
    url = SECRET_OPTION.sub(r"\1***", url)
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return url.replace(parts.netloc, f"{parts.username or ''}:***@{host}", 1)


def seen_in_ps(url: str, arguments: Sequence[str]) -> str:
    """Return a warning if the words that started this process hold the secrets of a URL; else nothing."""
    if without_password(url) == url or not any(word.removeprefix("--broker=") == url for word in arguments):
        return ""
    return (
        f"the password in {without_password(url)} can be read by all users of this machine while this runs (ps): "
        "give it in CELERYPIPE_REDIS_URL instead"
    )
