"""Ringing: when a warped node's queue gets a Celery task."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from celerypipe.mailbox.bell import Bell
from celerypipe.mailbox.mailbox import Mailbox, given_in
from celerypipe.redis import keys
from celerypipe.redis.connection import Command
from celerypipe.redis.query import Query
from celerypipe.redis.signing import Keyring
from celerypipe.runner.carrier.roster import Roster
from celerypipe.runner.carrier.whereabouts import Whereabouts
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.warp import Warp

if TYPE_CHECKING:
    from celerypipe.celery.item import Items

logger = logging.getLogger(__name__)

#: Work that one activation gets before a second one is rung for, in seconds.
WORK_PER_BELL = 0.050
#: A message that is out for so long may be a slow one among fast ones: its age counts as if it were the mean.
SLOW = 0.25
#: A node of which no message came back in so many seconds may be a slow one: more slots are rung for then.
UNKNOWN = 0.1
#: So many times the slots that were rung for must be worth it, before more are rung for ahead of the next tick.
OUTGROWN = 2
#: Seconds that an activation may stay beyond its ``linger`` before it notices that it is over.
SLACK = 0.15
#: Seconds without early bells for a node after one that was not needed.
NOT_EARLY = 60.0


class Bells:
    """Rings for the warps of one run, as many slots as the work is worth, and only where somebody lives.

    It holds no connection; who uses it holds the lock of the sender.
    """

    def __init__(
        self,
        course: Course,
        roster: Roster,
        whereabouts: Whereabouts,
        names: keys.Names = keys.USUAL,
        keyring: Keyring | None = None,
    ) -> None:
        self.course = course
        self._roster = roster
        self._whereabouts = whereabouts
        self._keyring = keyring
        self._names = names
        # It brings Celery along, which a run that sends nothing elsewhere does without.
        self._items: Items = import_module("celerypipe.celery.item").Items()
        self._ttl: dict[str, int] = {}
        self._rung_at: dict[str, float] = {}
        self._most: dict[str, int] = {}
        self._not_early: dict[str, float] = {}
        self._look_at: dict[Warp, float] = {}

    def most_slots(self, name: str) -> int:
        """The highest number of slots that was ever rung for a node."""
        return self._most.get(name, 1)

    def plan(self, warp: Warp, age: float = 0.0, batches: int | None = None) -> tuple[str, int, int]:
        """Return a new token, how many slots are wanted now, and how long a bell rung now shall live (ms).

        ``age``: seconds that its oldest message is out; ``batches``: what its messages make at most, if that is known.
        """
        token = secrets.token_hex(4)
        pinned = warp.limits.pinned and warp.answered_at  # somebody is there, and nobody could take its place
        if pinned or not self._roster.slots(warp.queue):
            return token, 0, keys.RUNG_TTL
        wanted, most = self._worth(warp, age, batches)
        if wanted < most and not warp.mean:
            self._look_at.setdefault(warp, time.monotonic() + UNKNOWN)
        warp.rung = wanted
        wanted = self._beside_stuck(warp, wanted)
        self._most[warp.name] = max(self._most.get(warp.name, 1), wanted)
        return token, wanted, self._ttl.get(warp.name, keys.RUNG_TTL)

    def _worth(self, warp: Warp, age: float = 0.0, batches: int | None = None) -> tuple[int, int]:
        """How many slots its messages are worth, and how many they could be shared out to.

        Before the first came back nobody knows how long they take: as long as the oldest is out, if that is not quick.
        """
        out = len(warp.flights)
        if not warp.mean:
            age = max(age, time.monotonic() - oldest_of(warp))
        mean = max(warp.mean, age) if age > (SLOW if warp.mean else UNKNOWN) else warp.mean
        if batches is None:
            batches = math.ceil(out / warp.limits.batches.size)  # more slots would share them out into smaller ones
        most = min(warp.parallel, batches)
        return max(1, min(most, math.ceil(out * mean / WORK_PER_BELL))), most

    def answered(self, warp: Warp) -> bool:
        """Results came: do those that are out take so much longer than it seemed that more slots cannot wait?"""
        enough = OUTGROWN * warp.rung
        if len(warp.flights) * warp.mean <= WORK_PER_BELL * (enough - 1) or self._worth(warp)[0] < enough:
            return False
        self._look_at[warp] = 0.0
        return True

    @property
    def look_at(self) -> float:
        """When more slots may be wanted before the next tick, by ``time.monotonic``."""
        return min(list(self._look_at.values()), default=math.inf)

    def grown(self) -> list[Warp]:
        """The nodes that may want more slots now."""
        now = time.monotonic()
        grown = [warp for warp, at in list(self._look_at.items()) if at <= now]
        for warp in grown:
            self._look_at.pop(warp, None)
        return grown

    def _beside_stuck(self, warp: Warp, wanted: int) -> int:
        """So many slots from the first on, that as many as are wanted are not held by a stuck activation."""
        stuck = self._whereabouts.stuck_slots(warp.queue)
        free = [slot for slot in range(warp.parallel) if slot not in stuck] if stuck else []
        return free[:wanted][-1] + 1 if free else wanted

    def may_be_early(self, warp: Warp, flights: int) -> bool:
        """Is the last answer or bell so long ago that no activation can be there, and these flights the only ones out?

        The activation of another node on the same queue serves this one too, so the others count as well.
        """
        now = time.monotonic()
        if len(warp.flights) != flights or now < self._not_early.get(warp.name, 0.0):
            return False
        company = [other for other in self._roster.warps if other.queue == warp.queue]
        quiet = max((other.limits.linger for other in company), default=0.0) + SLACK
        heard = [max(other.answered_at, self._rung_at.get(other.name, 0.0)) for other in company]
        return now - max(heard, default=0.0) > quiet and not any(each.flights for each in company if each is not warp)

    def was_early(self, warp: Warp, rung: Sequence[int]) -> None:
        """Note which slots were rung in the end: with none, somebody is there, and the bell was one too many."""
        if not rung:
            self._not_early[warp.name] = time.monotonic() + NOT_EARLY

    def asking_batches(self, mailboxes: Mapping[str, Mailbox], warps: Iterable[Warp]) -> dict[Warp, Query]:
        """Return what to ask before :meth:`ringing` for nodes that take several messages at once, and are slow."""
        return {
            warp: Query(mailboxes[warp.name].asking_given())
            for warp in warps
            if warp.limits.batches.size > 1 and time.monotonic() - oldest_of(warp) > SLOW
        }

    def ringing(
        self,
        mailboxes: Mapping[str, Mailbox],
        warps: Iterable[Warp],
        batches: Mapping[Warp, Query],
        newcomers: Collection[Warp] = (),
    ) -> list[Ringing]:
        """Return how to ring the wanted slots that have no bell; ``batches``: what :meth:`asking_batches` asked.

        A bell that is rung again without an answer lives longer. ``newcomers``: nodes for which a worker appeared: they
        are rung for also where a bell was rung for one that is gone.
        """
        found = []
        for warp in warps:
            if not any(flight.entry for flight in list(warp.flights.values())):
                continue  # who is about to send rings as well, and would take a bell of ours for somebody who is there
            if warp in newcomers or warp.answered_at > self._rung_at.get(warp.name, 0.0):
                self._ttl[warp.name] = keys.RUNG_TTL
            count = _batches(batches[warp].answer, warp) if warp in batches else None
            token, wanted, ttl = self.plan(warp, time.monotonic() - oldest_of(warp), count)
            if wanted:
                command = mailboxes[warp.name].ringing(token=token, wanted=wanted, ttl=ttl, force=warp in newcomers)
                found.append(Ringing(warp, token, ttl, Query(command)))
        return found

    def rung(self, ringings: Iterable[Ringing]) -> list[Command]:
        """Redis answered to all of these: return the commands that send the tasks of the slots that were rung."""
        commands: list[Command] = []
        for ringing in ringings:
            if slots := ringing.query.accepted:
                self._ttl[ringing.warp.name] = min(2 * ringing.ttl, keys.RUNG_TTL_MAX)
                commands += self.sending(ringing.warp, slots, ringing.token)
        return commands

    def sending(self, warp: Warp, slots: Sequence[int], token: str) -> list[Command]:
        """Return the commands that send one Celery task for each rung slot.

        Where they get lost, the bell lapses unanswered in seconds and is rung again.
        """
        commands: list[Command] = []
        for slot in slots:
            self._rung_at[warp.name] = time.monotonic()
            bell = Bell(self.course.run_id, warp.name, slot, token)
            arguments = bell.arguments(warp.node.mark, self._keyring)
            item = self._items.item(warp.node.mark, arguments, queue=warp.queue, shown=str(bell))
            commands.append(("LPUSH", self._names.queue(warp.queue), item))
        return commands

    def sent(self, answers: Iterable[Any]) -> None:
        """Redis answered so to these commands: say what it refused."""
        for refusal in answers:
            if isinstance(refusal, Exception):
                logger.warning("cannot ring: %s", refusal)


class Ringing(NamedTuple):
    """A node that is rung for: with which token, for how long (ms), and what Redis is asked for that."""

    warp: Warp
    token: str
    ttl: int
    query: Query


def oldest_of(warp: Warp) -> float:
    """When the message was sent that is out for the longest time, by ``time.monotonic``; now, if none is out."""
    return min((flight.sent_at for flight in list(warp.flights.values()) if flight.sent_at), default=time.monotonic())


def _batches(answer: Any, warp: Warp) -> int | None:
    """How many batches there are: one for each slot at work, however small it is, and what nobody was given yet."""
    if isinstance(answer, Exception):  # its mailbox is gone
        return None
    given = given_in(answer)
    left = max(0, len(warp.flights) - sum(given))
    return len(given) + math.ceil(left / warp.limits.batches.size)
