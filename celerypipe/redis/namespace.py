"""Namespaces: several projects in one database of one Redis, none of which sees the keys and tasks of another.

Inside this package the namespace is part of the address, as the number of the database is: whoever connects there uses
the names of keys that belong to it. Users give it in one variable, and addresses without it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from celerypipe.errors import ConfigError
from celerypipe.redis.keys import USUAL, Names

VARIABLE = "CELERYPIPE_NAMESPACE"
#: The one of who says nothing.
DEFAULT = "celerypipe"
#: How it stands at the end of an address, behind the question mark or the option before it.
_OPTION = re.compile(r"[?&]namespace=")
#: No colon, which parts the names of keys, and nothing that is more than a letter in a pattern of Redis or a shell.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


def namespace(text: str | None) -> str:
    """Return the namespace that the environment says; :class:`ConfigError` if that is no name of one."""
    if not text:
        return DEFAULT
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"{VARIABLE}: {text!r} is no namespace; write a name such as team-a: at most 64 letters (a to z, A to Z), "
            "digits, '-', '_' and '.', the first one a letter or a digit"
        )
    return text


def placed(url: str, name: str) -> str:
    """Return the address of a namespace at a Redis; :class:`ConfigError` if the URL names one already."""
    if _OPTION.search(url):
        raise ConfigError(f"the address of a Redis names no namespace; give it in {VARIABLE}")
    return url if name == DEFAULT else f"{url}{'&' if urlsplit(url).query else '?'}namespace={name}"


def parted(url: str) -> tuple[str, str]:
    """Return the URL of the Redis and the namespace of an address."""
    found = _OPTION.search(url)
    return (url[: found.start()], url[found.end() :]) if found else (url, DEFAULT)


def names_at(address: str) -> Names:
    """Return what the keys of the namespace of an address are called."""
    return named(parted(address)[1])


def named(name: str) -> Names:
    """Return what the keys of a namespace are called."""
    return USUAL if name == DEFAULT else Names(f"{DEFAULT}@{name}")
