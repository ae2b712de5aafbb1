"""Commands that are written to Redis together, and who is told each answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from celerypipe.redis.connection import Client, Command
from celerypipe.redis.script import together

logger = logging.getLogger(__name__)

#: Told the answers to its commands; None: Redis is gone, and nobody knows which of them were done.
WhenDone = Callable[[list[Any] | None], None]


class Round:
    """One round trip. What is added while answers are told belongs to the next one."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._told: list[tuple[int, WhenDone | None]] = []

    def __len__(self) -> int:
        return len(self._commands)

    def add(self, told: WhenDone | None, *commands: Command) -> None:
        """Ask for commands; nobody has to be told of them."""
        self._commands += commands
        self._told.append((len(commands), told))

    def run(self, client: Client, first: Sequence[Command] = ()) -> None:
        """Write all commands and tell their answers. Trouble is raised, and nobody is told yet.

        ``first``: commands that go before them, and whose answers nobody is told.
        """
        commands, self._commands = [*first, *self._commands], []
        everybody, self._told = self._told, []
        try:
            answers = together(client, *commands)
        except BaseException:  # whatever it was, who gives up after it tells all of them; it is raised again
            self._told = everybody
            raise
        start = len(first)
        for count, told in everybody:
            _tell(told, answers[start : start + count])
            start += count

    def give_up(self) -> None:
        """Tell all that there is no Redis."""
        while self._told:
            everybody, self._told, self._commands = self._told, [], []
            for _, told in everybody:
                _tell(told, None)


def _tell(told: WhenDone | None, answers: list[Any] | None) -> None:
    if told is None:
        return
    try:
        told(answers)
    except Exception:  # a defect of ours must not take the answers from all others
        logger.exception("internal error in the result cache")
