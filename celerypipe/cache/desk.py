"""Where questions are answered, by one thread: it looks, claims, waits for the claims of others, and hands on.

It never waits for anything but Redis; commands gather in a :class:`~celerypipe.cache.rounds.Round`. Within a process
equal questions wait for one claim; the claims of others are looked at again and again, ever less often.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import redis

from celerypipe.cache.books import Books
from celerypipe.cache.entry import BLOB_NEAR, Failure, Opened, SealedEntry, opened
from celerypipe.cache.keeping import Keeping
from celerypipe.cache.kept import Kept
from celerypipe.cache.question import FAILED, Claim, Computation, Found, Hear, Question, answer
from celerypipe.cache.seal import Refused
from celerypipe.cache.store import blob_name, entry_name
from celerypipe.codec import Content
from celerypipe.errors import CodecError
from celerypipe.redis import keys

#: Looks at the claim of somebody else, about five seconds of them, after which it is said that this run waits.
PATIENT = 30


class Desk:
    """``keeping`` stores results, and has the round that commands gather in; ``books`` has counts and notes.

    ``hear`` is told of claims that end, and has :meth:`ended` called by the thread of the desk.
    """

    def __init__(self, keeping: Keeping, books: Books, owner: str, hear: Hear) -> None:
        self.keeping = keeping
        self.round = keeping.round
        self.store = keeping.store
        self.books = books
        self._owner = owner
        self._hear = hear
        self._number = 0
        self._joined: dict[str, Computation] = {}
        self._open: dict[str, Computation] = {}
        self._polling: dict[str, Computation] = {}
        self._idlers: set[bytes] = set()

    def ask(self, question: Question) -> None:
        """Answer it, now or when Redis, the second tier or the holder of a claim answered."""
        if question.refresh:
            question.why = "refresh"
            self._claim(question)
            return
        if self._joins(question):
            return
        if self.keeping.present:
            self.round.add(partial(self._looked, question), self.store.looking(question.fingerprint))
        else:
            self._missed(question)

    def _looked(self, question: Question, answers: list[Any] | None) -> None:
        if answers and (entry := self._entry(question, answers[0])) is not None:
            self._fetch(question, entry)
        else:
            self._missed(question)

    def _entry(self, question: Question, data: object) -> Opened | None:
        """What Redis gave for an entry, if it is one and answers the question."""
        if isinstance(data, redis.ResponseError):
            self.books.say(f"the result cache cannot be read: Redis refuses ({data})", "refusal")
        if not isinstance(data, bytes) or not data:
            question.looked = True
            return None
        try:
            entry = opened(self.keeping.seal, question.fingerprint, data)
        except Refused as refused:
            self._refuse(question, refused)
            return None
        return entry if question.takes(entry.head) else None

    def _refuse(self, question: Question, error: CodecError, entry: Opened | None = None) -> None:
        if question.why != "refused":  # it is read again with the claim
            self.books.refused(error)
        question.why = "refused"
        question.unusable = None if entry is None else entry.head.created

    def _fetch(self, question: Question, entry: Opened) -> None:
        """Answer with an entry, and with what of it lies apart."""
        blob = entry.head.blob
        if blob is None:
            self._found(question, entry, None)
            return
        told = partial(self._fetched, question, entry)
        if blob.size <= BLOB_NEAR:
            self.round.add(
                lambda answers: told(None if answers is None else blob.assembled(answers)), *self.store.fetching(blob)
            )
        else:
            self.keeping.fetch(blob, told)

    def _fetched(self, question: Question, entry: Opened, content: Content | Refused | None) -> None:
        blob = entry.head.blob
        if content is None or blob is None:  # pushed out before its entry was; or Redis is gone
            question.why, question.unusable = "gone", entry.head.created
            self._missed(question)
        elif isinstance(content, Refused):
            self._refuse(question, content, entry)
            if not question.policy.read_only:  # what is altered would never be written again
                self.round.add(None, self.store.forgetting([blob_name(blob)]))
            self._missed(question)
        else:
            self._found(question, entry, content)

    def _found(self, question: Question, entry: Opened, content: Content | None) -> None:
        try:
            found = Found(entry.head, entry.messages(content))
        except CodecError as error:
            self._refuse(question, error, entry)
            self._missed(question)
            return
        if not question.policy.read_only:
            self.books.touch(entry_name(question.fingerprint))
            if entry.head.blob is not None:
                self.books.touch(blob_name(entry.head.blob))
        self.books.hit(entry.head)
        answer(question, found)

    def _missed(self, question: Question) -> None:
        if question.peeks:
            answer(question, None)
            return
        if not self._joins(question):
            self._claim(question)

    def _joins(self, question: Question) -> bool:
        """Does it wait for what is being computed here already?"""
        computation = self._joined.get(question.fingerprint)
        if computation is None or question.peeks or question.policy.read_only:
            return False
        if question.served() and not computation.served:
            return False  # who knows when
        question.looked = True
        computation.waiting.append(question)
        return True

    def _claim(self, question: Question) -> None:
        self._number += 1
        computation = Computation(f"{self._owner}.{self._number}", question)
        self._open[computation.owner] = computation
        if not question.refresh and not question.policy.read_only:
            self._joined[computation.fingerprint] = computation
        if self.keeping.present and not question.policy.read_only:
            self._try(computation)
        else:
            self._granted(computation)

    def _try(self, computation: Computation) -> None:
        question = computation.question
        claiming = self.store.claiming(computation.fingerprint, computation.holder, force=question.refresh)
        if computation.idle:
            claiming = self.store.taking_over(computation.fingerprint, computation.idle, computation.holder)
        names = self.store.names
        mark, claim = names.cache_mark(question.asked.mark), names.cache_claim(computation.fingerprint)
        more = ("PTTL", claim) if computation.tries else ("ZSCORE", mark, computation.fingerprint)
        looking = self.store.looking(computation.fingerprint)
        self.round.add(partial(self._tried, computation), claiming, looking, more, ("GET", claim))

    def _tried(self, computation: Computation, answers: list[Any] | None) -> None:
        if answers is None:
            self._granted(computation)
            return
        granted, data, more, holder = answers
        question = computation.question
        if isinstance(more, bytes):  # it was kept once
            question.why = question.why or "gone"
        computation.claimed = granted == b"OK"
        entry = None if question.refresh else self._entry(question, data)
        if entry is not None:
            self._leave(computation)
            for each in computation.questions:
                if each.takes(entry.head):
                    self._fetch(each, entry)
                else:
                    self.ask(each)
        elif granted is None:
            if computation.tries and isinstance(more, int) and (more == -1 or more > 2 * keys.CACHE_CLAIM_TTL):
                # Nobody of us wrote that claim, and it would never end.
                claim = self.store.names.cache_claim(computation.fingerprint)
                self.round.add(None, ("PEXPIRE", claim, keys.CACHE_CLAIM_TTL))
            computation.look_again(holder, self._idlers)
            if computation.tries == PATIENT:
                self.books.say("another run computes the same result: waiting for it", "waits")
            self._polling[computation.owner] = computation
        else:  # a Redis that is full refuses: then it is computed without a claim, and perhaps by others too
            self._granted(computation)

    def poll(self, now: float) -> None:
        """Look again at the claims of others that are due."""
        for computation in [each for each in self._polling.values() if each.due <= now]:
            del self._polling[computation.owner]
            self._try(computation)

    @property
    def due(self) -> float:
        """When the next one is."""
        return min((each.due for each in self._polling.values()), default=math.inf)

    def _granted(self, computation: Computation) -> None:
        if self.keeping.tier is not None and not computation.question.refresh:
            self.keeping.look(computation.fingerprint, partial(self._from_tier, computation))
        elif self.keeping.present or self.keeping.tier is not None:
            self._give(computation)
        else:
            self._abandon(computation, computation.questions)

    def _from_tier(self, computation: Computation, entry: SealedEntry | None) -> None:
        question = computation.question
        if not computation.given and computation.owner in self._open:  # else it was closed meanwhile
            if entry is None or not question.takes(entry.head):
                self._give(computation)
            else:
                self._finish(computation, entry, promoted=True)

    def _give(self, computation: Computation) -> None:
        question = computation.question
        if question.policy.read_only:
            self._abandon(computation, [question])
            return
        computation.given = True
        self.books.missed(question)
        ended = partial(self._hear, computation)
        claim = Claim(ended, failures=question.policy.failures, say=self.books.cannot_keep)
        if not answer(question, claim):
            claim.drop()

    def _abandon(self, computation: Computation, waiting: Iterable[Question]) -> None:
        """Nobody here computes it any more: those who wait compute for themselves, and nothing of that is kept."""
        self._leave(computation)
        self._give_unkept(waiting)

    def _give_unkept(self, questions: Iterable[Question]) -> None:
        for question in questions:
            self.books.missed(question)
            answer(question, Claim())

    def ended(self, computation: Computation, result: Kept | Failure | None, seconds: float) -> None:
        """A claim came to its end: keep what came of it, or let the next one compute it."""
        if result is FAILED:
            # So will the others, one after another, if it was not for chance: none of them waits for the next one.
            waiting = list(computation.waiting)
            computation.waiting = deque(waiting[:1])
            self._give_unkept(waiting[1:])
        if result is None or result is FAILED:
            self._sealed(computation, None)
            return
        if isinstance(result, Kept):
            computation.size = result.size
            self.keeping.waiting += computation.size
        self.keeping.seal_up(computation.question, result, seconds, partial(self._sealed, computation))

    def _sealed(self, computation: Computation, entry: SealedEntry | None) -> None:
        if entry is not None:
            self._finish(computation, entry)
        elif computation.waiting:
            self._kept(computation)
            computation.question = computation.waiting.popleft()
            self._give(computation)
        else:
            self._leave(computation)

    def _kept(self, computation: Computation) -> None:
        self.keeping.waiting -= computation.size
        computation.size = 0

    def _finish(self, computation: Computation, entry: SealedEntry, *, promoted: bool = False) -> None:
        """Tell all who wait for it, and keep it. The claim lives until that is done."""
        self._unjoin(computation)
        waiting = computation.questions if promoted else list(computation.waiting)
        computation.waiting.clear()
        computation.given = True
        if computation.question.policy.read_only:
            self._leave(computation)
        else:
            self.keeping.put(computation, entry, partial(self._leave, computation), promoted=promoted)
        read = opened(self.keeping.seal, computation.fingerprint, entry.data) if waiting else None
        for each in waiting:
            if read is not None and each.takes(read.head):
                self._found(each, read, entry.body)
            else:
                self.ask(each)

    def _unjoin(self, computation: Computation) -> None:
        if self._joined.get(computation.fingerprint) is computation:
            del self._joined[computation.fingerprint]

    def _leave(self, computation: Computation) -> None:
        """Nobody here computes it any more."""
        self._kept(computation)
        self._unjoin(computation)
        self._open.pop(computation.owner, None)
        if computation.claimed and self.keeping.present:
            self.round.add(None, self.store.releasing(computation.fingerprint, computation.owner))
        computation.claimed = False

    def renew(self) -> None:
        """Let the claims that are held here live on."""
        for computation in list(self._open.values()):
            for each in computation.let_go():
                self.ask(each)
        claims = [
            (computation.fingerprint, computation.holder) for computation in self._open.values() if computation.claimed
        ]
        for start in range(0, len(claims), 1000):
            self.round.add(None, self.store.renewing(claims[start : start + 1000]))

    def close(self) -> None:
        """Let go of everything: whoever waits computes for itself, and nothing of that is kept."""
        self._polling.clear()
        for computation in list(self._open.values()):
            waiting = list(computation.waiting) if computation.given else computation.questions
            self._abandon(computation, waiting)
