"""Asking a result cache, the way a run does, with an answer that can be waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celerypipe.cache.asked import Asked
from celerypipe.cache.cache import ResultCache
from celerypipe.cache.question import Claim, Found, Question
from celerypipe.definition.cache import CacheDefinition
from celerypipe.message.message import Message
from celerypipe.redis.signing import Keyring
from celerypipe.redis.url import read_address
from celerypipe.settings import CacheSettings
from tests.servers import eventually

PLAIN = CacheDefinition()
PARENT = Message("in", {"path": "a.png"}, sequence=3)


def asked(number: object = 0, *, mark: str = "tests.Node", code: str = "version 1", **configuration: str) -> Asked:
    """A question; another number is another input."""
    shown = {"threshold": "0.5", **configuration}
    return Asked(mark, code, shown, f"input {number}", {}, repr(sorted(shown.items())))


class Asking:
    """A cache and what it said."""

    def __init__(
        self,
        url: str | None,
        *,
        keys: str = "",
        size: int = 1 << 26,
        second: str | None = None,
        enabled: bool = True,
    ) -> None:
        self.said: list[str] = []
        settings = CacheSettings(bytes=size, url=second, enabled=enabled)
        keyring = Keyring.parse(keys)
        self.cache = ResultCache(
            url and read_address(url), settings=settings, keyring=keyring, say=self.said.append, run="run-1"
        )

    def start(self, what: Asked, policy: CacheDefinition = PLAIN, **options: Any) -> Waiting:
        """Ask, and wait for nothing."""
        waiting = Waiting()
        self.cache.post(Question(what, policy, waiting.told, **options))
        return waiting

    def look(self, what: Asked) -> Waiting:
        """Look for it; nobody is to compute it."""
        waiting = Waiting()
        self.cache.post(Question(what, PLAIN, waiting.told, peeks=True))
        return waiting

    def ask(self, what: Asked, policy: CacheDefinition = PLAIN, **options: Any) -> Found | Claim:
        """Ask, and wait for the answer."""
        answer = self.start(what, policy, **options).answer()
        assert answer is not None
        return answer

    def compute(self, what: Asked, payload: object, policy: CacheDefinition = PLAIN, **options: Any) -> bool:
        """Ask; compute it if it has to be. Return whether it had to be."""
        answer = self.ask(what, policy, **options)
        if isinstance(answer, Claim):
            answer.keep([Message(payload)], PARENT, seconds=0.5)
            return True
        return False

    def payload(self, what: Asked, policy: CacheDefinition = PLAIN) -> Any:
        """What is found; :class:`KeyError` if nothing is."""
        answer = self.ask(what, policy)
        if isinstance(answer, Claim):
            answer.drop()
            raise KeyError(what.input)
        return answer.outputs(PARENT)[0].payload


class Waiting:
    """An answer that comes once."""

    def __init__(self) -> None:
        self._answers: list[Found | Claim | None] = []
        self._there = threading.Event()

    def told(self, answer: Found | Claim | None) -> None:
        self._answers.append(answer)
        self._there.set()

    @property
    def is_there(self) -> bool:
        return self._there.is_set()

    def answer(self, timeout: float = 30.0) -> Found | Claim | None:
        assert self._there.wait(timeout), "the cache did not answer"
        assert len(self._answers) == 1, "the cache answered twice"
        return self._answers[0]

    def claim(self) -> Claim:
        answer = self.answer()
        assert isinstance(answer, Claim), answer
        return answer

    def found(self) -> Found:
        answer = self.answer()
        assert isinstance(answer, Found), answer
        return answer


def keep(ask: Asking, what: Asked, payload: object) -> None:
    """Compute it, and wait until it is in Redis."""
    there = ask.cache.stats.kept
    assert ask.compute(what, payload)
    eventually(lambda: ask.cache.stats.kept > there, "the entry")


@contextmanager
def asking(url: str | None, **options: Any) -> Iterator[Asking]:
    """A cache that is closed in the end."""
    made = Asking(url, **options)
    try:
        yield made
    finally:
        made.cache.close()
