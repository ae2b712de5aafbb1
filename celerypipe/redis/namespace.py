"""Namespaces: several projects in one database of one Redis, none of which sees the keys and tasks of another.

The namespace is part of an address as a value, as the number of the database is: whoever connects there uses the names
of keys that belong to it. Users give it in one variable, and addresses without it.
"""

from __future__ import annotations

import re

from celerypipe.errors import ConfigError
from celerypipe.redis.keys import USUAL, Names

VARIABLE = "CELERYPIPE_NAMESPACE"
#: The one of who says nothing.
DEFAULT = "celerypipe"
#: No colon, which parts the names of keys, and nothing that is more than a letter in a pattern of Redis or a shell.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


def is_namespace(text: str) -> bool:
    """Could somebody have that as a namespace?"""
    return _NAME.fullmatch(text) is not None


def namespace(text: str | None) -> str:
    """Return the namespace that the environment says; :class:`ConfigError` if that is no name of one."""
    if not text:
        return DEFAULT
    if not is_namespace(text):
        raise ConfigError(
            f"{VARIABLE}: {text!r} is no namespace; write a name such as team-a: at most 64 letters (a to z, A to Z), "
            "digits, '-', '_' and '.', the first one a letter or a digit"
        )
    return text


def name_in(names: Names) -> str:
    """Return the namespace whose keys are called so."""
    return names.prefix.partition("@")[2] or DEFAULT


def named(name: str) -> Names:
    """Return what the keys of a namespace are called."""
    return USUAL if name == DEFAULT else Names(f"{DEFAULT}@{name}")
