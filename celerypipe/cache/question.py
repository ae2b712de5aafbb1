"""A question to the cache, and its two answers: it was found, or it is to be computed and is claimed."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from celerypipe.cache.asked import Asked
from celerypipe.cache.entry import Failure, Head
from celerypipe.cache.kept import Kept, kept, restored
from celerypipe.definition.cache import CacheDefinition
from celerypipe.errors import CodecError
from celerypipe.message.message import Message

logger = logging.getLogger(__name__)

#: Begins a claim that others may take over: it is of a run that waits for a worker, perhaps for ever.
IDLE = "?"
#: How often it is seen so, about three seconds long, before it is taken over: its run may have found a worker.
IDLE_LOOKS = 20
#: Seconds between two looks at a claim of somebody else: the first and the longest.
SOON, LATER = 0.02, 0.2


@dataclass(frozen=True, slots=True)
class Found:
    """A result that was kept. ``seconds``: what computing it cost; ``size``: its bytes."""

    head: Head
    messages: Sequence[Message] = ()

    @property
    def failure(self) -> Failure | None:
        """What the node raised, if that is what was kept."""
        return self.head.failure

    @property
    def seconds(self) -> float:
        return self.head.seconds

    @property
    def size(self) -> int:
        return self.head.size

    def outputs(self, parent: Message) -> list[Message]:
        """Return the outputs as the node would have made them from this message; they are to be stamped."""
        return restored(self.head.forms, self.messages, parent)


#: What a claim ended with that failed, where that is not kept.
FAILED = Failure("", "", "")

#: Told how a claim ended: what is to be kept, or nothing, and the seconds that it cost.
Ended = Callable[[Kept | Failure | None, float], None]


class Claim:
    """It is for the holder to compute this. Exactly one of the three methods ends it; others wait for that.

    Without ``ended`` nothing is kept and nobody waits.
    """

    __slots__ = ("_ended", "_failures", "_say")

    def __init__(
        self, ended: Ended | None = None, *, failures: bool = False, say: Callable[[str], object] = str
    ) -> None:
        self._ended = [] if ended is None else [ended]
        self._failures = failures
        self._say = say

    def keep(self, outputs: Sequence[Message], parent: Message, *, seconds: float) -> None:
        """These are the outputs that the node made of the message; they may change afterwards."""
        if not self._ended:
            return
        try:
            self._end(kept(outputs, parent), seconds)
        except CodecError as error:
            self._say(str(error))
            self._end(None, 0.0)

    def failed(self, failure: Failure | None) -> None:
        """The node failed on the message. What its code raised is kept if the node's ``cache`` says so.

        None: its code raised nothing. A lost worker, a lost payload or a timeout says nothing about the question.
        """
        self._end(failure if self._failures and failure is not None else FAILED, 0.0)

    def drop(self) -> None:
        """Nothing comes of it: the next one who asks may compute it."""
        self._end(None, 0.0)

    def _end(self, result: Kept | Failure | None, seconds: float) -> None:
        try:
            ended = self._ended.pop()
        except IndexError:  # it ended before
            return
        ended(result, seconds)


#: Gets what was found, or a claim to compute it; of a question that only peeks, None in the place of a claim.
WhenAnswered = Callable[[Found | Claim | None], None]


@dataclass(slots=True, eq=False)
class Question:
    """One question on its way. ``refresh``: look at nothing, compute it. ``rerun_failing``: a failure is no answer.

    ``node`` and ``message`` (its number or id) are what :mod:`celerypipe.cache.explain` finds it by. ``peeks``: it is
    only looked at. Whoever computes one thing after the other must not claim what it comes to later: two that did so
    could wait for each other for ever.

    ``notes``: the keys of the input's meta; None: they do not matter. ``served``: is anybody there who would compute
    it, such as a live worker? ``looked``: it has seen what is kept, or waits for what is being computed;
    ``unusable``: when the entry was kept that it has seen and cannot use; ``why``: why what was there did not
    answer it.
    """

    asked: Asked
    policy: CacheDefinition
    answer: WhenAnswered
    refresh: bool = False
    rerun_failing: bool = False
    node: str = ""
    message: str = ""
    peeks: bool = False
    served: Callable[[], bool] = lambda: True
    notes: Collection[str] | None = None
    fingerprint: str = ""
    looked: bool = False
    unusable: float | None = None
    why: str = ""

    def __post_init__(self) -> None:
        self.fingerprint = self.asked.fingerprint

    def takes(self, head: Head) -> bool:
        """Does this entry answer it?"""
        first, self.looked = not self.looked, True
        if head.created == self.unusable:
            return False
        if head.is_over(self.policy.ttl):
            self.why = "expired"
            return False
        if head.failure is None:
            if self.notes is None or head.fits(self.notes):
                return True
            self.why, self.unusable = "notes", head.created
            return False
        # A failure that was kept after the question was asked is the answer of whoever ran it again.
        if not self.policy.failures or (self.rerun_failing and first):
            self.why, self.unusable = "failed", head.created
            return False
        return True


@dataclass(slots=True, eq=False)
class Computation:
    """What is being computed: who claimed it, the question that it is computed for, and those that wait for it.

    ``claimed``: there is a key in Redis that says so; ``given``: whoever asked was told to compute it; ``tries``: how
    often somebody else had the claim; ``idle``: that claim, if it is to be taken over, and ``idles``: how often it was
    seen to be idle; ``size``: bytes that wait to be kept.
    """

    owner: str
    question: Question
    waiting: deque[Question] = field(default_factory=deque)
    claimed: bool = False
    given: bool = False
    tries: int = 0
    idle: bytes = b""
    idles: int = 0
    due: float = 0.0
    pause: float = SOON
    size: int = 0

    @property
    def fingerprint(self) -> str:
        """What all of them ask for."""
        return self.question.fingerprint

    @property
    def questions(self) -> list[Question]:
        """All of them."""
        return [self.question, *self.waiting]

    @property
    def served(self) -> bool:
        """Is anybody there who would compute it?"""
        return self.question.served() or (not self.given and any(each.served() for each in self.waiting))

    @property
    def holder(self) -> str:
        """What its claim says: whose it is, and whether nobody is there who would compute it."""
        return self.owner if self.served else f"{IDLE}{self.owner}"

    def look_again(self, claim: object, idlers: set[bytes]) -> None:
        """Somebody else has the claim: see it again soon, and take it over then if nobody is there to compute it.

        ``idlers``: caches of which that is known.
        """
        self.idle = b""
        if isinstance(claim, bytes) and claim.startswith(IDLE.encode()) and self.served:
            self.idles += 1
            if self.idles >= IDLE_LOOKS:
                idlers.add(claim.partition(b".")[0])
            self.idle = claim if claim.partition(b".")[0] in idlers else b""
        else:
            self.idles = 0
        self.tries += 1
        self.due = time.monotonic() + self.pause
        self.pause = min(LATER, 1.3 * self.pause)

    def let_go(self) -> list[Question]:
        """Return those that need not wait for this any longer: theirs is computed as soon as it is asked for."""
        if not self.given or not self.waiting or self.served:
            return []
        able = [each for each in self.waiting if each.served()]
        self.waiting = deque(each for each in self.waiting if each not in able)
        return able


#: Takes over a claim's end, from whatever thread: the computation, what is to be kept, the seconds that it cost.
Hear = Callable[[Computation, Kept | Failure | None, float], None]


def answer(question: Question, found: Found | Claim | None) -> bool:
    """Tell whoever asked; was it taken?"""
    try:
        question.answer(found)
    except Exception:  # whoever asked made a mistake; the others still have to be answered
        logger.exception("nobody took the answer of the result cache")
        return False
    return True
