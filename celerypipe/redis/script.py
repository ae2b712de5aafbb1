"""A Lua script as Redis is asked to run it: by its digest, and as text where the server does not know that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import redis

from celerypipe.redis.connection import Client, Command, accepted

_TEXTS: dict[str, str] = {}


class Script:
    """A Lua script, sent by its digest; the text follows only when the server does not know it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        _TEXTS[self.digest] = text

    def __call__(self, client: Client, keys: Sequence[str], *arguments: Any) -> Any:
        """Run it; ``keys`` and ``arguments`` are Lua's KEYS and ARGV."""
        return call(client, self.command(keys, *arguments))

    def command(self, keys: Sequence[str], *arguments: Any) -> Command:
        """Return the command that runs it, to be asked with others by :func:`together`."""
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)


def call(client: Client, command: Command) -> Any:
    """As ``client.call``; a script that the server does not know is sent as text."""
    return accepted(together(client, command))[0]


def together(client: Client, *commands: Command) -> list[Any]:
    """As ``client.together``; a script that the server does not know is sent as text."""
    return known(client, commands, client.together(*commands))


def known(client: Client, commands: Sequence[Command], answers: list[Any]) -> list[Any]:
    """Return answers in which no script is unknown: those that are run once more, in one round trip."""
    unknown = [place for place, each in enumerate(answers) if isinstance(each, redis.exceptions.NoScriptError)]
    again = [("EVAL", _TEXTS[commands[place][1]], *commands[place][2:]) for place in unknown]
    for place, answer in zip(unknown, client.together(*again) if again else (), strict=True):
        answers[place] = answer
    return answers
