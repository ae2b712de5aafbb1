"""The result cache of one run: questions go in, and come back as what was found, or as a claim to compute it.

A thread of its own asks Redis, all that waits in one round trip. It never fails a run: without Redis every question is
a miss that is not kept, and after the first that had to wait (a second or two) nobody waits until Redis is back.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

import redis

from celerypipe.cache.books import Books, Stats
from celerypipe.cache.desk import Desk
from celerypipe.cache.entry import INLINE_LIMIT, Failure
from celerypipe.cache.keeping import Keeping
from celerypipe.cache.kept import Kept
from celerypipe.cache.lane import Lane
from celerypipe.cache.question import Claim, Computation, Question
from celerypipe.cache.seal import Seal
from celerypipe.cache.store import CacheStore
from celerypipe.cache.tier import Tier
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Client, OneLine, connect, said
from celerypipe.redis.keys import USUAL
from celerypipe.redis.signing import Keyring
from celerypipe.settings import CacheSettings

logger = logging.getLogger(__name__)

#: Seconds that Redis may take to answer, and between two looks whether it is back.
PATIENCE = 1.5
AGAIN = 1.0
#: Seconds between two renewals of claims; figures are written and room is looked at as often.
EVERY = 1.0
#: Questions that travel together, and bytes of large results that may wait to be kept; one is always taken.
TOGETHER = 256
WAITING = 256 * 1024 * 1024
#: Seconds that :meth:`ResultCache.close` waits for what is still to be kept.
CLOSING = 10.0


class ResultCache:
    """One per run; ``run`` is its id, for ``explain``. ``address``: of the run's Redis, which is asked nothing yet.

    After a fork the child has a cache of its own that begins anew.
    """

    def __init__(
        self,
        address: Address | None,
        *,
        settings: CacheSettings,
        keyring: Keyring | None,
        say: Callable[[str], None],
        run: str = "",
    ) -> None:
        own = settings.redis
        self._address = (own or address) if settings.enabled else None
        self._tier_url = settings.beside if settings.enabled else ""
        self._settings = settings
        self._keyring = keyring
        self._say = say
        self._run = run
        self.stats = Stats()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._client: Client | None = None
        self._closed = self._stopping = self._away = self._ended_for_good = False
        self._waiting = 0
        self._look_again = self._every = 0.0
        names = self._address.names if self._address is not None else USUAL
        self._books = Books(self._run, self._say, self.stats, names)
        seal, lane = Seal(self._keyring), Lane(self._address)
        tier = Tier(self._tier_url, seal, self._books.say) if self._tier_url else None
        self._lane = lane
        self._keeping = Keeping(CacheStore(self._settings.bytes, names), seal, lane, tier, self._books, self._inbox.put)
        self._desk = Desk(self._keeping, self._books, os.urandom(8).hex(), self._hear)

    # -- asking -----------------------------------------------------------------------------------------------------

    def post(self, question: Question) -> None:
        """Have a question answered, once: by the cache's thread, or by this one before it returns.

        Who gets the answer must wait for nobody. A claim has to be ended as soon as its result is there, not when its
        turn comes: others may wait for it whose results this run waits for.
        """
        if os.getpid() != self._process:
            self._begin()
        if self._closed or not (self._address or self._tier_url) or (self._away and not self._tier_url):
            with self._lock:
                self.stats.misses += 1
            question.answer(None if question.peeks else Claim())
            return
        if self._thread is None:
            self._start()
        self._inbox.put(partial(self._desk.ask, question))
        if self._ended_for_good:
            self._empty()

    def _hear(self, computation: Computation, result: Kept | Failure | None, seconds: float) -> None:
        """A claim came to its end, in whatever thread."""
        if self._closed or os.getpid() != self._process:
            return
        size = result.size if isinstance(result, Kept) else 0
        with self._lock:
            waits = self._waiting + self._keeping.waiting
            if size > INLINE_LIMIT and waits and waits + size > WAITING:
                self._books.say("results arrive faster than the cache can store them: some are not stored")
                result, size = None, 0
            self._waiting += size
        self._inbox.put(partial(self._ended, computation, result, seconds, size))

    def _ended(self, computation: Computation, result: Kept | Failure | None, seconds: float, size: int) -> None:
        with self._lock:
            self._waiting -= size
        self._desk.ended(computation, result, seconds)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._serve, name="celerypipe-cache", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        due = until = 0.0
        while not self._stopping or ((not self._inbox.empty() or self._keeping.is_busy) and time.monotonic() < until):
            until = until if self._stopping else time.monotonic() + CLOSING
            self._connect()
            self._take(max(0.0, min(due, self._every) - time.monotonic()))
            try:
                due = self._turn()
            except Exception:  # a defect of ours must not end the thread that all others wait for
                logger.exception("internal error in the result cache")
                due = time.monotonic() + EVERY
        self._desk.close()
        self._every = 0.0
        self._turn()
        self._lane.close()
        if self._client is not None:
            self._client.close()
        self._keeping.present, self._keeping.tier = False, None
        self._ended_for_good = True
        self._empty()

    def _empty(self) -> None:
        """Answer what was asked while the thread ended."""
        with self._lock, suppress(Empty):
            while True:
                self._inbox.get_nowait()()

    def _take(self, patience: float) -> None:
        """Do what waits; wait for something if there is nothing."""
        with suppress(Empty):
            for number in range(TOGETHER):
                if patience and not number:
                    work = self._inbox.get(timeout=min(patience, EVERY))
                else:
                    work = self._inbox.get_nowait()
                try:
                    work()
                except Exception:  # a defect of ours must not end the thread that all others wait for
                    logger.exception("internal error in the result cache")

    def _turn(self) -> float:
        """Ask Redis what there is to ask, until there is nothing more; return when to do so again."""
        now, desk, books, round_ = time.monotonic(), self._desk, self._books, self._desk.round
        desk.poll(now)
        if now >= self._every:
            self._every = now + EVERY
            if self._keeping.present:
                desk.renew()
                round_.add(None, *books.counting())
                round_.add(self._measured, ("INFO", "memory"))
        while len(round_):
            if not self._keeping.present or self._client is None:
                round_.give_up()
                break
            used = books.used()
            first = [*((desk.store.touching(used),) if used else ()), *books.writing()]
            try:
                round_.run(self._client, first)
            except Exception as error:  # noqa: BLE001  # whatever it is, all that was asked has to be answered
                self._lost(error)
        return desk.due  # as of now: what was asked just now may have to wait for somebody else

    def _measured(self, answers: list[object] | None) -> None:
        if answers and (surplus := self._desk.store.measured(answers[0])):
            self._desk.round.add(None, self._desk.store.shrinking(surplus))

    def _connect(self) -> None:
        """See whether Redis is there, or is back."""
        if self._address is None or self._keeping.present or time.monotonic() < self._look_again or self._stopping:
            return
        try:
            if self._client is None:
                self._client = connect(self._address, name="celerypipe-cache", timeout=PATIENCE, kind=OneLine)
            answer = self._client.together(("INFO", "memory"))[0]
        except Exception as error:  # noqa: BLE001  # also what is wrong with its address: no reason to end a run
            self._lost(error)
            return
        self._desk.store.measured(answer)
        self._books.forget("away")
        self._keeping.present, self._away = True, False

    def _lost(self, error: Exception) -> None:
        self._keeping.present, self._away = False, True
        self._look_again = time.monotonic() + AGAIN
        self._desk.round.give_up()
        text = said(error) if isinstance(error, redis.RedisError | OSError) else str(error)
        self._books.say(f"the result cache is off until Redis is back: {text}", "away")

    def close(self) -> None:
        """Keep what is still to be kept, for ten seconds at most; let go of all claims."""
        with self._lock:
            if self._closed or os.getpid() != self._process:
                return
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._inbox.put(self._stop)
            if thread is not threading.current_thread():
                thread.join(CLOSING + 2 * PATIENCE)

    def _stop(self) -> None:
        self._stopping = True
