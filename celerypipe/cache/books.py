"""What the cache of one run counts, says and notes: figures, uses, and what was missed, for whoever asks why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from celerypipe import codec
from celerypipe.cache.entry import Head
from celerypipe.cache.question import Question
from celerypipe.cache.seal import Refused
from celerypipe.errors import CodecError
from celerypipe.redis import keys
from celerypipe.redis.connection import Command

logger = logging.getLogger(__name__)

#: Questions of one run that are noted, and characters of what was missed.
NOTES = 10_000
#: Seconds for which a use is not noted again, and uses that are remembered for that.
USED_AGAIN = 0.25
USES = 100_000


@dataclass(slots=True)
class Stats:
    """What the cache did for a run. Bytes and seconds are those that hits saved; ``refused``: entries not believed."""

    hits: int = 0
    misses: int = 0
    kept: int = 0
    bytes: int = 0
    seconds: float = 0.0
    refused: int = 0


class Books:
    """Written by the cache's thread. ``say`` tells the user something; here it is said once."""

    def __init__(self, run: str, say: Callable[[str], None], stats: Stats, names: keys.Names) -> None:
        self.stats = stats
        self._names = names
        self._run = run
        self._tell = say
        self._said: set[str] = set()
        self._told = Stats()
        self._uses: dict[str, float] = {}
        self._used: list[str] = []
        self._notes: list[tuple[str, bytes]] = []
        self._noted = 0
        self._listed = False

    def say(self, text: str, kind: str = "") -> None:
        """Say it, once of its kind."""
        if (kind or text) not in self._said:
            self._said.add(kind or text)
            self._tell(text)

    def cannot_keep(self, why: object) -> None:
        """A result cannot be kept, whatever room there is."""
        self.say(f"a result is not kept: {why}", "cannot keep")

    def forget(self, kind: str) -> None:
        """It may be said again."""
        self._said.discard(kind)

    def refused(self, error: CodecError) -> None:
        """An entry was not believed."""
        self.stats.refused += 1
        kind = error.kind if isinstance(error, Refused) else "cannot be decoded"
        self.say(f"the result cache has entries that {kind}: they count as misses")
        logger.debug("refused an entry: %s", error)

    def hit(self, head: Head) -> None:
        """Something was found."""
        self.stats.hits += 1
        self.stats.bytes += head.size
        self.stats.seconds += head.seconds

    def missed(self, question: Question) -> None:
        """Something has to be computed; what was asked is noted with the next commands."""
        self.stats.misses += 1
        if not (self._run and question.node) or question.policy.read_only or self._noted >= NOTES:
            return
        self._noted += 1
        said = {"asked": question.asked.to_dict(), "at": time.time(), "why": question.why}
        self._notes.append((f"{question.node}/{question.message}", codec.encode_value(said)))

    def touch(self, what: str) -> None:
        """Something was used."""
        now = time.monotonic()
        if now - self._uses.get(what, -1.0) >= USED_AGAIN:
            if len(self._uses) >= USES:
                self._uses.clear()
            self._uses[what] = now
            self._used.append(what)

    def used(self) -> list[str]:
        """Return what was used since the last time."""
        used, self._used = self._used, []
        return used

    def writing(self) -> list[Command]:
        """Return what is to be noted now."""
        if not self._notes:
            return []
        notes, self._notes = self._notes, []
        name = self._names.cache_asked(self._run)
        commands: list[Command] = [
            ("HSET", name, *(part for note in notes for part in note)),
            ("PEXPIRE", name, keys.CACHE_ASKED_TTL),
        ]
        if not self._listed:
            self._listed, now, runs = True, time.time(), self._names.cache_runs
            commands.append(("ZREMRANGEBYSCORE", runs, "-inf", now - keys.CACHE_ASKED_TTL / 1000))
            commands += [("ZADD", runs, now, self._run), ("PEXPIRE", runs, keys.CACHE_ASKED_TTL)]
        return commands

    def counting(self) -> list[Command]:
        """Return what adds the figures of this run, as far as they are new, to those of all runs."""
        stats, told = self.stats, self._told
        commands: list[Command] = []
        for name in ("hits", "misses", "kept", "bytes", "refused"):
            if more := getattr(stats, name) - getattr(told, name):
                commands.append(("HINCRBY", self._names.cache_counts, name, more))
                setattr(told, name, getattr(stats, name))
        if stats.seconds != told.seconds:
            commands.append(("HINCRBYFLOAT", self._names.cache_counts, "seconds", repr(stats.seconds - told.seconds)))
            told.seconds = stats.seconds
        if commands:
            commands.append(("PEXPIRE", self._names.cache_counts, keys.CACHE_TTL))
        return commands
