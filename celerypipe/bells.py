"""Ringing: when a warped node's queue gets a Celery task, and who lives there to take it."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis
from kombu.exceptions import OperationalError

from celerypipe import fitness, keys, preflight
from celerypipe.celery import app
from celerypipe.connection import Client, Trouble
from celerypipe.course import Course
from celerypipe.errors import ConfigError, NoWorker
from celerypipe.fence import take_back
from celerypipe.finding import Finding, Seen
from celerypipe.mailbox import Mailbox
from celerypipe.presence import Record, read_presences
from celerypipe.settings import broker_url
from celerypipe.shared_memory import is_proven
from celerypipe.signing import Keyring, signed_bell, strangers
from celerypipe.warp import Warp

logger = logging.getLogger(__name__)

#: Work that one activation gets before a second one is rung for, in seconds.
WORK_PER_BELL = 0.050
#: A message that is out for so long may be a slow one among fast ones: its age counts as if it were the mean.
SLOW = 0.25
#: Seconds after which a queue without a live worker is said, or decided about.
NO_WORKER_AFTER = 1.5
#: Seconds between two looks at the workers' presence.
LOOK = 1.0
#: Seconds that an activation may stay beyond its ``linger`` before it notices that it is over.
SLACK = 0.15
#: Seconds without early bells for a node after one that was not needed.
NOT_EARLY = 60.0


class Bells:
    """Rings for the warps of one run, as many slots as the work is worth, and only where somebody lives."""

    def __init__(self, course: Course, url: str, keyring: Keyring | None = None) -> None:
        self.course = course
        self._keyring = keyring
        self._trusted: set[str] = set()
        self._url = broker_url(url)
        self._connection: Any = None
        self._producer: Any = None
        self._presences: list[Record] = []
        self._looked = 0.0
        self._ttl: dict[str, int] = {}
        self._rung_at: dict[str, float] = {}
        self._missing: dict[str, float] = {}
        self._said: set[str] = set()
        self._known: dict[str, set[str]] = {}
        self._most: dict[str, int] = {}
        self._fit: dict[str, frozenset[str]] = {}
        self._findings: set[Finding] = set()
        self._declared: Mapping[str, str] = {}
        self._sharing: dict[str, bool] = {}
        self._seen: dict[str, tuple[float, Record]] = {}
        self._believed: list[Record] = []
        self._believed_until = 0.0
        self._warps: list[Warp] = []
        self._not_early: dict[str, float] = {}

    def told(self, seen: Seen, findings: Iterable[Finding]) -> None:
        """Preflight looked at this, and said all that: it is not said again."""
        self._findings.update(findings)
        self._declared = seen.declared
        waiting = (
            node for node in seen.pipeline.nodes if node.warped and node.warp_configuration.on_no_worker == "wait"
        )
        self._said.update(node.queue for node in waiting if not seen.workers_of(node.queue))
        self._said.update(worker["id"] for worker in seen.workers if seen.stranger(worker))

    # -- who lives there --------------------------------------------------------------------------------------------

    def workers(self, queue: str) -> list[Record]:
        """The live workers of a queue, as of the last look."""
        return [worker for worker in self._presences if queue in worker["queues"]]

    def slots(self, queue: str) -> int:
        """The processes or threads of its live workers together."""
        return sum(int(worker["slots"]) for worker in self.workers(queue))

    def interrupts(self, queue: str) -> bool:
        """Can all its live workers interrupt an ``update``?"""
        return all(worker["interrupts"] for worker in self.workers(queue))

    def share_memory(self, queue: str) -> bool:
        """Do all its live workers see this machine's shared memory? At least one has to live."""
        workers = self.workers(queue)
        for worker in workers:
            if worker["id"] not in self._sharing:
                self._sharing[worker["id"]] = is_proven(str(worker.get("shared", "")))
        return bool(workers) and all(self._sharing[worker["id"]] for worker in workers)

    def most_slots(self, name: str) -> int:
        """The highest number of slots that was ever rung for a node."""
        return self._most.get(name, 1)

    def abandoned(self, warp: Warp) -> bool:
        """Has its queue been without a live worker for a while?"""
        since = self._missing.get(warp.queue)
        return since is not None and time.monotonic() - since > NO_WORKER_AFTER

    def look(self, client: Client, warps: Iterable[Warp]) -> None:
        """Read who lives; check what they know; say what is missing."""
        self._warps = list(warps)
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        self._presences = self._with_believed(self._with_our_keys(read_presences(client)), now)
        for warp in self._warps:
            workers = self.workers(warp.queue)
            if workers:
                self._missing.pop(warp.queue, None)
                self._said.discard(warp.queue)
                self._check_fitness(warp, workers)
            self._know(client, warp, {worker["id"] for worker in workers})
            if not workers:
                self._missing.setdefault(warp.queue, now)
                if self.abandoned(warp):
                    self._nobody(client, warp)

    def believe(self) -> None:
        """Redis was away or lost what it held: whoever lived before has until ``PRESENCE_TTL`` to say so again.

        Else a run would find no worker for a moment, and ``on_no_worker`` would decide about messages that one holds.
        """
        now = time.monotonic()
        if now >= self._believed_until:
            self._believed = [record for at, record in self._seen.values() if at >= self._looked - 2 * LOOK]
            self._believed_until = now + keys.PRESENCE_TTL

    def _with_believed(self, found: list[Record], now: float) -> list[Record]:
        there = {record["id"] for record in found}
        self._seen = {name: seen for name, seen in self._seen.items() if seen[0] >= now - keys.PRESENCE_TTL}
        self._seen.update((record["id"], (now, record)) for record in found)
        if now >= self._believed_until:
            return found
        return found + [record for record in self._believed if record["id"] not in there]

    def _know(self, client: Client, warp: Warp, ids: set[str]) -> None:
        """A worker appeared: ring at once, also where a bell was rung for one that is gone."""
        before = self._known.get(warp.name, set())
        self._known[warp.name] = ids
        if ids - before and warp.flights:
            self._ttl[warp.name] = keys.RUNG_TTL
            self.ring(client, Mailbox(self.course.run_id, warp.name), warp, force=True)

    def _with_our_keys(self, presences: Iterable[Record]) -> list[Record]:
        """Return the workers that understand what we sign: a queue where nobody ever did ends the run."""
        ours, texts = [], []
        for worker in presences:
            if text := strangers(self._keyring, worker.get("keys", ())):
                texts.append((worker, f"the worker on {worker['host']}, process {worker['pid']}, {text}"))
            else:
                ours.append(worker)
                self._trusted.update(worker["queues"])
        for warp in self._warps:
            found = [(worker["id"], text) for worker, text in texts if warp.queue in worker["queues"]]
            if found and warp.queue not in self._trusted:
                self.course.fail(ConfigError(f"node {warp.name!r}, queue {warp.queue!r}: {found[0][1]}"))
            for worker_id, text in found:
                if worker_id not in self._said:
                    self._said.add(worker_id)
                    self.course.say(f"queue {warp.queue!r}: {text}; it gets no work of this run")
        return ours

    def _check_fitness(self, warp: Warp, workers: Sequence[Record]) -> None:
        """Compare the node with what the workers of its queue say of themselves, when they are not those of before.

        Workers with another version of a node are refused when the first ones are seen. A run that goes on is not
        ended because its workers get new code; it says so.
        """
        if any(worker["marks"].get(warp.node.mark, {}).get("stateful") for worker in workers):
            warp.becomes_stateful()
        ids = frozenset(worker["id"] for worker in workers)
        if self._fit.get(warp.name) == ids:
            return
        first = warp.name not in self._fit
        self._fit[warp.name] = ids
        nodes = [other.node for other in self._warps]
        found = fitness.findings(warp.node, workers, self._declared.get(warp.name), nodes)
        new = [finding for finding in found if finding not in self._findings]
        self._findings.update(new)
        if error := preflight.error_of([each for each in new if first or each.check != "version"]):
            self.course.fail(error)
        for finding in new:
            self.course.say(str(finding))

    def _nobody(self, client: Client, warp: Warp) -> None:
        queue = warp.queue
        missing = fitness.missing(warp.node, self._presences)
        if queue not in self._said and warp.limits.on_no_worker != "fail":
            self._said.add(queue)
            self.course.say(str(missing))
        if warp.limits.on_no_worker == "fail":
            text = f"{missing.text}; start one where it shall run: {missing.mend}"
            flights = [flight for flight in list(warp.flights.values()) if flight.sent_at]
            mailbox = Mailbox(self.course.run_id, warp.name)
            if warp.retained is not None:
                warp.retained.doubtful |= not all(flight.entry for flight in flights)  # nobody knows where those are
            for flight in take_back(client, mailbox, flights, stateful=warp.retained is not None):
                warp.failed(flight, NoWorker(f"{warp.name}: {text}", node=warp.name, message_id=flight.message.id))

    # -- ringing ----------------------------------------------------------------------------------------------------

    def plan(self, warp: Warp, age: float = 0.0, batches: int | None = None) -> tuple[str, int, int]:
        """Return a new token, how many slots are wanted now, and how long a bell rung now shall live (ms).

        ``age``: seconds that its oldest message is out; ``batches``: what its messages make at most, if that is known.
        """
        token = secrets.token_hex(4)
        pinned = warp.limits.pinned and warp.answered_at  # somebody is there, and nobody could take its place
        if pinned or not self.slots(warp.queue):
            return token, 0, keys.RUNG_TTL
        out = len(warp.flights)
        mean = max(warp.mean, age) if age > SLOW else warp.mean
        if batches is None:
            batches = math.ceil(out / warp.limits.batches.size)  # more slots would share them out into smaller ones
        wanted = max(1, min(warp.parallel, math.ceil(out * mean / WORK_PER_BELL), batches))
        warp.rung = wanted
        self._most[warp.name] = max(self._most.get(warp.name, 1), wanted)
        return token, wanted, self._ttl.get(warp.name, keys.RUNG_TTL)

    def may_be_early(self, warp: Warp, flights: int) -> bool:
        """Is the last answer or bell so long ago that no activation can be there, and these flights the only ones out?

        The activation of another node on the same queue serves this one too, so the others count as well.
        """
        now = time.monotonic()
        if len(warp.flights) != flights or now < self._not_early.get(warp.name, 0.0):
            return False
        company = [other for other in self._warps if other.queue == warp.queue]
        quiet = max((other.limits.linger for other in company), default=0.0) + SLACK
        heard = [max(other.answered_at, self._rung_at.get(other.name, 0.0)) for other in company]
        return now - max(heard, default=0.0) > quiet and not any(each.flights for each in company if each is not warp)

    def was_early(self, warp: Warp, rung: Sequence[int]) -> None:
        """Note which slots were rung in the end: with none, somebody is there, and the bell was one too many."""
        if not rung:
            self._not_early[warp.name] = time.monotonic() + NOT_EARLY

    def ring(self, client: Client, mailbox: Mailbox, warp: Warp, *, age: float = 0.0, force: bool = False) -> None:
        """Ring the wanted slots that have no bell. A bell that is rung again without an answer lives longer."""
        if warp.answered_at > self._rung_at.get(warp.name, 0.0):
            self._ttl[warp.name] = keys.RUNG_TTL
        batches = None
        if age > SLOW and warp.limits.batches.size > 1:
            batches = _batches(mailbox, client, warp)
        token, wanted, ttl = self.plan(warp, age, batches)
        if not wanted:
            return
        rung = mailbox.ring(client, token=token, wanted=wanted, ttl=ttl, force=force)
        if rung:
            self._ttl[warp.name] = min(2 * ttl, keys.RUNG_TTL_MAX)
            self.publish(warp, rung, token)

    def publish(self, warp: Warp, slots: Sequence[int], token: str) -> None:
        """Send one Celery task for each rung slot."""
        for slot in slots:
            self._rung_at[warp.name] = time.monotonic()
            bell = signed_bell(self._keyring, warp.node.mark, [self.course.run_id, warp.name, slot, token])
            try:
                app.send_task(
                    warp.node.mark,
                    bell,
                    queue=warp.queue,
                    producer=self._ready(),
                    retry=False,
                    ignore_result=True,
                    declare=(),  # its queue is a list that is there when something is in it
                    argsrepr=repr(bell),  # Celery's own way to the same text takes longer than sending it
                    kwargsrepr="{}",
                )
            except (OperationalError, redis.RedisError, *Trouble) as error:
                # The bell lapses unanswered in seconds and is rung again.
                logger.warning("cannot ring for node %s: %s", warp.name, error)
                self.reset()

    def _ready(self) -> Any:
        if self._producer is None:
            self._connection = app.connection_for_write(self._url)
            self._producer = app.amqp.Producer(self._connection, auto_declare=False)
        return self._producer

    def reset(self) -> None:
        """Forget the connection; the next bell makes a new one."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def close(self) -> None:
        """Let go of the connection."""
        self.reset()


def _batches(mailbox: Mailbox, client: Client, warp: Warp) -> int:
    """How many batches there are: one for each slot at work, however small it is, and what nobody was given yet."""
    given = mailbox.given(client)
    left = max(0, len(warp.flights) - sum(given))
    return len(given) + math.ceil(left / warp.limits.batches.size)
