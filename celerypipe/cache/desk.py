"""Where questions are answered, by one thread: it looks, claims, waits for the claims of others, and hands on.

It never waits for anything but Redis; commands gather in a :class:`~celerypipe.cache.rounds.Round`. Within a process
equal questions wait for one claim; the claims of others are looked at again and again, ever less often.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import redis

from celerypipe import keys
from celerypipe.cache.books import Books
from celerypipe.cache.entry import BLOB_NEAR, Content, Failure, Opened, Sealed, opened
from celerypipe.cache.keeping import Keeping
from celerypipe.cache.kept import Kept
from celerypipe.cache.question import FAILED, Claim, Flight, Found, Hear, Question, answer
from celerypipe.cache.seal import Refused
from celerypipe.cache.store import blob_name, entry_name
from celerypipe.errors import CodecError

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
        self._joined: dict[str, Flight] = {}
        self._open: dict[str, Flight] = {}
        self._polling: dict[str, Flight] = {}
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
        entry = self._entry(question, answers[0]) if answers else None
        if entry is None:
            self._missed(question)
        else:
            self._fetch(question, entry)

    def _entry(self, question: Question, data: object) -> Opened | None:
        """What Redis gave for an entry, if it is one and answers the question."""
        if isinstance(data, redis.ResponseError):
            self.books.say(f"the result cache finds nothing: Redis refuses what it asks ({data})", "refusal")
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
        flight = self._joined.get(question.fingerprint)
        if flight is None or question.peeks or question.policy.read_only:
            return False
        if question.served() and not flight.served:
            return False  # who knows when
        question.looked = True
        flight.waiting.append(question)
        return True

    def _claim(self, question: Question) -> None:
        self._number += 1
        flight = Flight(f"{self._owner}.{self._number}", question)
        self._open[flight.owner] = flight
        if not question.refresh and not question.policy.read_only:
            self._joined[flight.fingerprint] = flight
        if self.keeping.present and not question.policy.read_only:
            self._try(flight)
        else:
            self._granted(flight)

    def _try(self, flight: Flight) -> None:
        question = flight.question
        claiming = self.store.claiming(flight.fingerprint, flight.holder, force=question.refresh)
        if flight.idle:
            claiming = self.store.taking_over(flight.fingerprint, flight.idle, flight.holder)
        mark, claim = keys.cache_mark(question.asked.mark), keys.cache_claim(flight.fingerprint)
        more = ("PTTL", claim) if flight.tries else ("ZSCORE", mark, flight.fingerprint)
        looking = self.store.looking(flight.fingerprint)
        self.round.add(partial(self._tried, flight), claiming, looking, more, ("GET", claim))

    def _tried(self, flight: Flight, answers: list[Any] | None) -> None:
        if answers is None:
            self._granted(flight)
            return
        granted, data, more, holder = answers
        question = flight.question
        if isinstance(more, bytes):  # it was kept once
            question.why = question.why or "gone"
        flight.claimed = granted == b"OK"
        entry = None if question.refresh else self._entry(question, data)
        if entry is not None:
            self._leave(flight)
            for each in flight.questions:
                self._settle(each, entry)
        elif granted is None:
            if flight.tries and isinstance(more, int) and (more == -1 or more > 2 * keys.CACHE_CLAIM_TTL):
                # Nobody of us wrote that claim, and it would never end.
                self.round.add(None, ("PEXPIRE", keys.cache_claim(flight.fingerprint), keys.CACHE_CLAIM_TTL))
            flight.look_again(holder, self._idlers)
            if flight.tries == PATIENT:
                self.books.say("another run has claimed what is asked for here: this one waits for it", "waits")
            self._polling[flight.owner] = flight
        else:  # a Redis that is full refuses: then it is computed without a claim, and perhaps by others too
            self._granted(flight)

    def _settle(self, question: Question, entry: Opened) -> None:
        if question.takes(entry.head):
            self._fetch(question, entry)
        else:
            self.ask(question)

    def poll(self, now: float) -> None:
        """Look again at the claims of others that are due."""
        for flight in [each for each in self._polling.values() if each.due <= now]:
            del self._polling[flight.owner]
            self._try(flight)

    @property
    def due(self) -> float:
        """When the next one is."""
        return min((each.due for each in self._polling.values()), default=math.inf)

    def _granted(self, flight: Flight) -> None:
        if self.keeping.tier is not None and not flight.question.refresh:
            self.keeping.look(flight.fingerprint, partial(self._from_tier, flight))
        elif self.keeping.present or self.keeping.tier is not None:
            self._give(flight)
        else:
            self._leave(flight)
            for each in flight.questions:
                self._give_unkept(each)

    def _from_tier(self, flight: Flight, entry: Sealed | None) -> None:
        question = flight.question
        if not flight.given and flight.owner in self._open:  # else it was closed meanwhile
            if entry is None or not question.takes(entry.head):
                self._give(flight)
            else:
                self._finish(flight, entry, promoted=True)

    def _give(self, flight: Flight) -> None:
        question = flight.question
        if question.policy.read_only:
            self._leave(flight)
            self._give_unkept(question)
            return
        flight.given = True
        self.books.missed(question)
        ended = partial(self._hear, flight)
        claim = Claim(ended, failures=question.policy.failures, say=self.books.cannot_keep)
        if not answer(question, claim):
            claim.drop()

    def _give_unkept(self, question: Question) -> None:
        self.books.missed(question)
        answer(question, Claim())

    def ended(self, flight: Flight, result: Kept | Failure | None, seconds: float) -> None:
        """A claim came to its end: keep what came of it, or let the next one compute it."""
        if result is FAILED:
            # So will the others, one after another, if it was not for chance: none of them waits for the next one.
            for each in list(flight.waiting)[1:]:
                flight.waiting.remove(each)
                self._give_unkept(each)
        if result is None or result is FAILED:
            self._sealed(flight, None)
            return
        if isinstance(result, Kept):
            flight.size = result.size
            self.keeping.waiting += flight.size
        self.keeping.seal_up(flight.question, result, seconds, partial(self._sealed, flight))

    def _sealed(self, flight: Flight, entry: Sealed | None) -> None:
        if entry is not None:
            self._finish(flight, entry)
        elif flight.waiting:
            self._kept(flight)
            flight.question = flight.waiting.popleft()
            self._give(flight)
        else:
            self._leave(flight)

    def _kept(self, flight: Flight) -> None:
        self.keeping.waiting -= flight.size
        flight.size = 0

    def _finish(self, flight: Flight, entry: Sealed, *, promoted: bool = False) -> None:
        """Tell all who wait for it, and keep it. The claim lives until that is done."""
        self._unjoin(flight)
        waiting = flight.questions if promoted else list(flight.waiting)
        flight.waiting.clear()
        flight.given = True
        if flight.question.policy.read_only:
            self._leave(flight)
        else:
            self.keeping.put(flight, entry, partial(self._leave, flight), promoted=promoted)
        read = opened(self.keeping.seal, flight.fingerprint, entry.data) if waiting else None
        for each in waiting:
            if read is not None and each.takes(read.head):
                self._found(each, read, entry.body)
            else:
                self.ask(each)

    def _unjoin(self, flight: Flight) -> None:
        if self._joined.get(flight.fingerprint) is flight:
            del self._joined[flight.fingerprint]

    def _leave(self, flight: Flight) -> None:
        """Nobody here computes it any more."""
        self._kept(flight)
        self._unjoin(flight)
        self._open.pop(flight.owner, None)
        if flight.claimed and self.keeping.present:
            self.round.add(None, self.store.releasing(flight.fingerprint, flight.owner))
        flight.claimed = False

    def renew(self) -> None:
        """Let the claims that are held here live on."""
        for flight in list(self._open.values()):
            for each in flight.let_go():
                self.ask(each)
        claims = [(flight.fingerprint, flight.holder) for flight in self._open.values() if flight.claimed]
        for start in range(0, len(claims), 1000):
            self.round.add(None, self.store.renewing(claims[start : start + 1000]))

    def close(self) -> None:
        """Let go of everything: whoever waits computes for itself, and nothing of that is kept."""
        self._polling.clear()
        for flight in list(self._open.values()):
            waiting = list(flight.waiting) if flight.given else flight.questions
            self._leave(flight)
            for question in waiting:
                self._give_unkept(question)
