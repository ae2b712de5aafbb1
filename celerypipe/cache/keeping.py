"""How results are kept: in Redis, where large bytes go by threads of their own, and in the second tier."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import redis

from celerypipe.cache.books import Books
from celerypipe.cache.entry import BLOB_NEAR, Bulk, Failure, SealedEntry, sealed
from celerypipe.cache.kept import Kept
from celerypipe.cache.lane import Lane
from celerypipe.cache.question import Computation, Question
from celerypipe.cache.rounds import Round
from celerypipe.cache.seal import Refused, Seal
from celerypipe.cache.store import OVERHEAD, CacheStore, is_full
from celerypipe.cache.tier import Tier
from celerypipe.codec import Content
from celerypipe.errors import CodecError

#: Has something called by the cache's thread, soon.
Post = Callable[[Callable[[], None]], None]


class Keeping:
    """``present``: Redis is there. ``waiting``: bytes that are on their way. ``post``: see :data:`Post`.

    Used by the cache's thread.
    """

    def __init__(self, store: CacheStore, seal: Seal, lane: Lane, tier: Tier | None, books: Books, post: Post) -> None:
        self.store = store
        self.seal = seal
        self.round = Round()
        self.present = False
        self.waiting = 0
        self.tier = tier
        self._lane = lane
        self._books = books
        self._post = post

    def seal_up(
        self, question: Question, result: Kept | Failure, seconds: float, told: Callable[[SealedEntry | None], None]
    ) -> None:
        """Make the entry of a result; None if it cannot be one. A digest of much takes long."""
        work = partial(self._entry, question, result, seconds)
        if isinstance(result, Kept) and result.size > BLOB_NEAR:
            self._do(work, told)
        else:
            told(work())

    def _entry(self, question: Question, result: Kept | Failure, seconds: float) -> SealedEntry | None:
        try:
            asked, ttl = question.asked.to_dict(), question.policy.ttl
            return sealed(self.seal, question.fingerprint, asked, result, seconds, ttl)
        except CodecError as error:
            self._books.cannot_keep(error)
            return None

    def fetch(self, blob: Bulk, told: Callable[[Content | Refused | None], None]) -> None:
        """Get a large blob, and look whether it is the one."""
        lane, commands = self._lane, self.store.fetching(blob)
        self._do(lambda: blob.assembled(lane.client.together(*commands)), told)

    def look(self, fingerprint: str, told: Callable[[SealedEntry | None], None]) -> None:
        """Look into the second tier."""
        tier = self.tier
        self._do(lambda: None if tier is None else tier.get(fingerprint), told)

    def put(
        self, computation: Computation, entry: SealedEntry, done: Callable[[], None], *, promoted: bool = False
    ) -> None:
        """Keep an entry; ``done`` is called when the claim is of no more use."""
        tier, fingerprint = self.tier, computation.fingerprint
        size, blob = len(entry.data) + len(entry.body), entry.head.blob
        if tier is not None and not promoted and not tier.rests:
            self.waiting += size
            self._do(lambda: tier.put(fingerprint, entry), partial(self._behind, size))
        if not self.present:
            done()
        elif not self.store.fits(size):
            self._books.say(
                f"a result of {size:,} bytes is not kept in Redis: the limit of the cache is {self.store.budget:,} "
                "bytes, and of one result half of that; raise CELERYPIPE_CACHE_BYTES, and the maxmemory of Redis",
                "too large",
            )
            done()
        elif blob is None:
            self._write(computation, entry, done)
        else:
            lane, store = self._lane, self.store
            written = partial(self._blob_written, computation, entry, done)
            self._do(lambda: store.write_blob(lane.client, blob, entry.body), written)

    def _behind(self, size: int, _: None) -> None:
        self.waiting -= size

    def _blob_written(
        self, computation: Computation, entry: SealedEntry, done: Callable[[], None], was: bool | None
    ) -> None:
        if was and self.present:
            self._write(computation, entry, done)
        else:
            self._no_room()
            done()

    def _write(
        self, computation: Computation, entry: SealedEntry, done: Callable[[], None], *, again: bool = False
    ) -> None:
        mark = computation.question.asked.mark
        command = self.store.keeping(computation.fingerprint, mark, entry, computation.owner)
        self.round.add(partial(self._written, computation, entry, done, again), command)

    def _written(
        self,
        computation: Computation,
        entry: SealedEntry,
        done: Callable[[], None],
        again: bool,
        answers: list[Any] | None,
    ) -> None:
        answer = answers[0] if answers else None
        if is_full(answer) and not again:
            self.round.add(None, self.store.shrinking(2 * (len(entry.data) + OVERHEAD)))
            self._write(computation, entry, done, again=True)
            return
        computation.claimed = computation.claimed and answer not in (0, 1)  # else it ended with that
        if answer == 1:
            self._books.stats.kept += 1
        elif isinstance(answer, redis.ResponseError) and not is_full(answer):
            self._books.say(f"the result cache cannot store results: Redis refuses ({answer})", "refusal to keep")
        elif answer is not None:
            self._no_room()
        done()

    def _no_room(self) -> None:
        self._books.say("a result is not stored: Redis has no memory left")

    def _do(self, work: Callable[[], Any], told: Callable[[Any], None]) -> None:
        """Let one of the lane's threads do it, and have what came of it told by the cache's."""
        self._lane.do(work, lambda found: self._post(lambda: told(found)))

    @property
    def is_busy(self) -> bool:
        """Is there something that one of the lane's threads does, or will do?"""
        return self._lane.pending > 0
