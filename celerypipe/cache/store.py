"""The commands by which results lie in a Redis: names, sizes and scripts, but no connection.

What is there has a budget of bytes and goes by its last use. Entries and blobs are entered one by one: a blob that
several entries refer to is used by each of them, and an entry whose blob was pushed out is a miss.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import redis

from celerypipe.cache.entry import CHUNK, ENTRY_LIMIT, Bulk, SealedEntry
from celerypipe.cache.scripts import FORGET, KEEP, RELEASE, RENEW, RESERVE, SHRINK, TAKE_OVER, TOUCH
from celerypipe.codec import Content
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command
from celerypipe.redis.script import together

#: Bytes that Redis needs for a thing besides its content: its key and its places in the books (measured: 430).
OVERHEAD = 512
#: Fingerprints that are remembered for each mark, for the sake of explanations.
NEWEST = 1000
#: One result may take this part of the budget; larger ones would push out all others.
SHARE = 0.5

#: The part of Redis' memory up to which mailboxes and the cache may grow without the cache giving way.
NEARLY = 0.9

_MEMORY = re.compile(rb"^(maxmemory|used_memory):(\d+)", re.MULTILINE)


class CacheStore:
    """The cache in one Redis. ``budget``: bytes that it may take there."""

    def __init__(self, budget: int, names: keys.Names) -> None:
        self.names = names
        self._wanted = budget
        self.budget = budget

    def measured(self, said: object) -> int:
        """Read what ``INFO memory`` says: the cache never takes more than half of what Redis may take.

        Return how many bytes it should give back now, because Redis is nearly full.
        """
        if not isinstance(said, bytes):  # this user may not ask
            return 0
        found = {name: int(value) for name, value in _MEMORY.findall(said)}
        most = found.get(b"maxmemory", 0)
        self.budget = min(self._wanted, most // 2) if most else self._wanted
        return max(0, int(found.get(b"used_memory", 0) - NEARLY * most)) if most else 0

    def fits(self, size: int) -> bool:
        """Is there room for one result of so many bytes?"""
        return size + 2 * OVERHEAD <= SHARE * self.budget

    def looking(self, fingerprint: str) -> Command:
        """Ask for an entry: no more of it than an entry can be."""
        return ("GETRANGE", self.names.cache_entry(fingerprint), 0, ENTRY_LIMIT)

    def claiming(self, fingerprint: str, owner: str, *, force: bool = False) -> Command:
        """Ask to be the one who computes it."""
        return (
            "SET",
            self.names.cache_claim(fingerprint),
            owner,
            *(() if force else ("NX",)),
            "PX",
            keys.CACHE_CLAIM_TTL,
        )

    def taking_over(self, fingerprint: str, idle: bytes, owner: str) -> Command:
        """Ask for a claim of somebody who has nobody to compute it."""
        return TAKE_OVER.command((self.names.cache_claim(fingerprint),), idle, owner, keys.CACHE_CLAIM_TTL)

    def releasing(self, fingerprint: str, owner: str) -> Command:
        """Let go of a claim."""
        return RELEASE.command((self.names.cache_claim(fingerprint),), owner)

    def renewing(self, claims: Sequence[tuple[str, str]]) -> Command:
        """Let claims live on: fingerprints, and by whom they are claimed."""
        names = [self.names.cache_claim(fingerprint) for fingerprint, _ in claims]
        return RENEW.command(names, keys.CACHE_CLAIM_TTL, *(owner for _, owner in claims))

    def touching(self, what: Iterable[str]) -> Command:
        """Note that these were used."""
        return TOUCH.command(self.names.cache_books, *what)

    def forgetting(self, what: Iterable[str]) -> Command:
        """Remove these."""
        return FORGET.command(self.names.cache_books, *what)

    def shrinking(self, size: int) -> Command:
        """Give so many bytes back to Redis."""
        return SHRINK.command(self.names.cache_books, size)

    def keeping(self, fingerprint: str, mark: str, entry: SealedEntry, owner: str) -> Command:
        """Keep an entry whose blob is stored already."""
        head = entry.head
        return KEEP.command(
            (
                *self.names.cache_books,
                self.names.cache_entry(fingerprint),
                self.names.cache_claim(fingerprint),
                self.names.cache_mark(mark),
            ),
            self.budget,
            entry_name(fingerprint),
            len(entry.data) + OVERHEAD,
            entry.data,
            0 if head.ttl is None else max(1, min(int(head.ttl * 1000), keys.CACHE_TTL * 1000)),
            owner,
            fingerprint,
            blob_name(head.blob) if head.blob is not None else "",
            NEWEST,
        )

    def fetching(self, blob: Bulk) -> list[Command]:
        """Ask for a blob: no more of each part than there should be, and one byte that tells if there is more."""
        return [
            ("GETRANGE", self.names.cache_blob(blob.digest, number), 0, size) for number, size in enumerate(blob.chunks)
        ]

    def write_blob(self, client: Client, blob: Bulk, body: Content) -> bool:
        """Store a blob, unless it is there already; False: there is no room for it. Not for the thread that answers."""
        chunks = blob.chunks
        names = [self.names.cache_blob(blob.digest, number) for number in range(len(chunks))]
        there = together(client, *(("STRLEN", name) for name in names)) == chunks
        reserve = RESERVE.command(self.names.cache_books, self.budget, blob_name(blob), blob.size + OVERHEAD)
        if not self._insist(client, reserve, blob.size):
            return False
        view = memoryview(body)
        for number, name in enumerate(names):
            part = [view[number * CHUNK : (number + 1) * CHUNK]]
            if not there and not self._insist(client, ("SET", name, part, "PX", keys.CACHE_TTL), blob.size):
                together(client, self.forgetting([blob_name(blob)]))
                return False
        return True

    def _insist(self, client: Client, command: Command, size: int) -> bool:
        """Do it, once more after giving memory back if Redis is full; was it done?"""
        answer = together(client, command)[0]
        if is_full(answer):
            together(client, self.shrinking(2 * size))
            answer = together(client, command)[0]
        return bool(answer) and not isinstance(answer, redis.ResponseError)


def is_full(answer: object) -> bool:
    """Did Redis refuse because it may take no more memory?"""
    return isinstance(answer, redis.OutOfMemoryError) or (
        isinstance(answer, redis.ResponseError) and "OOM " in str(answer)
    )


def entry_name(fingerprint: str) -> str:
    """An entry, as the books call it."""
    return f"e:{fingerprint}"


def blob_name(blob: Bulk) -> str:
    """A blob, as the books call it."""
    return f"b:{blob.digest}:{len(blob.chunks)}"
