"""A command that is asked together with others, and its answer: one round trip, however many ask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.redis.script import together


class Query:
    """A command, and once it was asked its answer: a refusal of Redis is one too."""

    __slots__ = ("answer", "command")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.answer: Any = None

    @property
    def accepted(self) -> Any:
        """The answer; a refusal is raised."""
        return accepted([self.answer])[0]


def ask(client: Client, queries: Iterable[Query]) -> None:
    """Ask all of them at once."""
    asked = [*queries]
    if asked:
        for query, answer in zip(asked, together(client, *(each.command for each in asked)), strict=True):
            query.answer = answer
