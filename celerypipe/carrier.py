"""Two threads of a run that move the messages of all its warped nodes through Redis.

The *post* thread appends to mailboxes, rings bells, renews leases and audits; the *reply* thread reads the one reply
stream of the run. What can wait for Redis happens in these threads only, never in the one that watches time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from celerypipe import blob, codec, keys
from celerypipe.bells import Bells
from celerypipe.connection import Broken, Client, connect, explained, is_gone
from celerypipe.errors import RedisUnavailable, RunCancelled
from celerypipe.holdings import Holdings
from celerypipe.mailbox import as_reply
from celerypipe.replies import READ_BLOCK, Replies
from celerypipe.station import Course
from celerypipe.warp import Flight, Warp
from celerypipe.whereabouts import Whereabouts

#: Seconds between two rounds of keeping: leases, bells, presences.
TICK = 0.5
#: A message that is out for so long starts an audit, and so long passes before the next.
AUDIT_AFTER = 3.0


class RedisCarrier:
    """Moves messages between the warps of one run and the workers. ``budget`` bounds the bytes in flight."""

    def __init__(self, course: Course, url: str, *, budget: int) -> None:
        self.course = course
        self.url = url
        self.budget = budget
        self.warps: dict[str, Warp] = {}
        self.holdings = Holdings(course.run_id)
        self.mailboxes = self.holdings.mailboxes
        self.instead: Callable[[Warp], None] | None = None
        self._outbox: deque[tuple[Warp, Flight]] = deque()
        self._changed = threading.Condition()
        self._bytes = 0
        self._garbage: deque[str] = deque()
        self._closing = False
        self._broken = False
        self._audited: dict[str, float] = {}
        self._client: Client = connect(url, name="celerypipe-post")
        self.bells = Bells(course, url)
        self.whereabouts = Whereabouts(url, self.bells)
        self.replies = Replies(course, url, self.warps, self._garbage, again=self.post, heard=self.whereabouts.heard)
        self._threads: list[threading.Thread] = []

    # -- life -------------------------------------------------------------------------------------------------------

    def open(self, warps: Iterable[Warp], records: Mapping[str, bytes]) -> None:
        """Reach Redis, make the run's keys, look who is there. Raises :class:`RedisUnavailable`."""
        for warp in warps:
            self.warps[warp.name] = warp
        self.holdings.plan(records)
        with explained(self.url):
            version = str(self._client.info("server")["redis_version"])
            if tuple(map(int, version.split(".")[:2])) < (6, 2):
                raise RedisUnavailable(f"Redis {version} is too old; celerypipe needs 6.2 or newer")
            self.holdings.make(self._client)
            self.bells.look(self._client, self.warps.values())

    def start(self) -> None:
        """Start both threads."""
        for name, work in (("post", self._post_loop), ("reply", self.replies.loop)):
            thread = threading.Thread(target=self._guarded, args=(work,), name=f"celerypipe-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self, state: str) -> None:
        """Say that the run is ``finished`` or ``cancelled``, remove its keys, end the threads."""
        with self._changed:
            self._closing = self.replies.closing = True
            self._changed.notify_all()
        last = connect(self.url, name="celerypipe-close", timeout=2.0)
        with contextlib.suppress(*Broken):  # an entry ends the wait for a reply; without, it ends within a second
            last.xadd(keys.reply(self.course.run_id), {"n": ""}, nomkstream=True)
        for thread in self._threads:
            thread.join(READ_BLOCK + 2.0)
        try:
            slots = {name: self.bells.most_slots(name) for name in self.warps}
            self.holdings.remove(last, state, slots=slots, blobs=[*self._garbage, *self._blobs()])
        except Broken as error:
            self.course.say(f"Redis does not answer ({error}); the keys of this run go away by themselves in a minute")
        for each in (last, self._client, self.replies, self.bells, self.whereabouts):
            each.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
            self.course.fail(error)

    # -- what warps ask for -----------------------------------------------------------------------------------------

    def room(self, size: int) -> bool:
        return self._bytes == 0 or self._bytes + size <= self.budget

    def post(self, warp: Warp, flight: Flight) -> None:
        with self._changed:
            if not flight.sent_at:
                self._bytes += flight.size
            flight.sent_at = time.monotonic()
            self._outbox.append((warp, flight))
            self._changed.notify()

    def settled(self, warp: Warp, flight: Flight) -> None:
        if flight.sent_at:
            with self._changed:
                self._bytes -= flight.size
        if flight.blob:
            self._garbage.append(flight.blob)

    def withdraw(self, warp: Warp, flight: Flight) -> str:
        mailbox = self.mailboxes[warp.name]
        where, behind = self.whereabouts.withdraw(mailbox, warp, flight)
        for other in behind:
            self.post(warp, other)
        return where

    def began(self, warp: Warp, flight: Flight) -> float:
        return self.whereabouts.began(self.mailboxes[warp.name], warp, flight)

    def slots(self, warp: Warp) -> int:
        return self.bells.slots(warp.queue)

    # -- the post thread --------------------------------------------------------------------------------------------

    def _post_loop(self) -> None:
        next_tick = 0.0
        while True:
            batch = self._wait(next_tick)
            if batch is None:
                return
            try:
                if self._broken:
                    self._recover()  # its audit sends again what is ours
                    batch = {warp: flights for warp, flights in batch.items() if warp.carrier is not self}
                for warp, flights in batch.items():
                    self._send(warp, flights)
                if time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK
                    self._tick()
            except Broken as error:
                self._lost_redis(error)

    def _wait(self, until: float) -> dict[Warp, list[Flight]] | None:
        with self._changed:
            if self._broken:
                self._changed.wait(0.2)
            while not self._outbox and not self._closing and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._closing:
                return None
            batch: dict[Warp, list[Flight]] = {}
            while self._outbox:
                warp, flight = self._outbox.popleft()
                batch.setdefault(warp, []).append(flight)
        return batch

    def _send(self, warp: Warp, flights: list[Flight]) -> None:
        run = self.course.run_id
        entries = []
        flights = [flight for flight in flights if not flight.done]
        if warp.carrier is not self:  # it was moved while this message was handed over
            for flight in flights:
                self.settled(warp, flight)
                warp.carrier.post(warp, flight)
            return
        if not flights:
            return
        for flight in flights:
            data = flight.data if flight.data is not None else codec.encode_joined((flight.message,))
            if len(data) > blob.INLINE_LIMIT:
                flight.blob = blob.put(self._client, run, data)
                data = b""
            flight.data = None
            entries.append((flight.sequence, flight.attempt, flight.blob, data))
        token, wanted, ttl = self.bells.plan(warp)
        answer = self.mailboxes[warp.name].send(self._client, entries, token=token, wanted=wanted, ttl=ttl)
        if answer is None:
            self._make_again()
            return
        for flight, entry in zip(flights, answer[0], strict=True):
            flight.entry = entry
        self.bells.publish(warp, answer[1], token)

    def _tick(self) -> None:
        now = time.monotonic()
        before, complete = self.holdings.renew(self._client, self._blobs())
        if before == b"cancelled":
            self.course.fail(RunCancelled(f"run {self.course.run_id} was cancelled from outside"))
        if not complete:
            self._make_again()
        self.bells.look(self._client, self._mine())
        for warp in self._mine():
            self._keep(warp, now)

    def _blobs(self) -> Iterator[str]:
        """The blobs of what is in flight."""
        return (f.blob for warp in self.warps.values() for f in list(warp.flights.values()) if f.blob)

    def _make_again(self) -> None:
        """Something is missing in Redis: make it anew, and send again what went with it."""
        self.holdings.make(self._client)
        self._audit(*self._mine())

    def _mine(self) -> list[Warp]:
        """The warps whose messages still travel through Redis; ``on_no_worker: local`` takes some elsewhere."""
        return [warp for warp in self.warps.values() if warp.carrier is self]

    def give_away(self, warp: Warp) -> list[Flight]:
        """Take back all that is out for a warp that another carrier serves from now on."""
        with self._changed:
            self._outbox = deque(item for item in self._outbox if item[0] is not warp)
        flights = [flight for _, flight in sorted(warp.flights.items()) if flight.sent_at]
        for flight in flights:
            self.withdraw(warp, flight)
            self.settled(warp, flight)
        return flights

    def _keep(self, warp: Warp, now: float) -> None:
        if not warp.flights:
            return
        if self.bells.abandoned(warp) and self.instead is not None and warp.limits.on_no_worker == "local":
            self.instead(warp)
            return
        oldest = min((flight.sent_at for flight in list(warp.flights.values()) if flight.sent_at), default=now)
        self.bells.ring(self._client, self.mailboxes[warp.name], warp, age=now - oldest)
        if now - max(oldest, self._audited.get(warp.name, 0.0)) > AUDIT_AFTER:
            self._audit(warp)

    def _audit(self, *warps: Warp) -> None:
        """Compare what is in flight with what Redis holds, and send again what is neither there nor answered."""
        with self._changed:
            queued = {flight for _, flight in self._outbox}
        for warp in warps:
            self._audited[warp.name] = time.monotonic()
            out = [f for f in list(warp.flights.values()) if f.sent_at and f not in queued]
            # The mailbox first: what leaves it after this look is in the reply stream before the next one.
            there = self.mailboxes[warp.name].waiting(self._client)
            replies: Any = self._client.xrange(keys.reply(self.course.run_id))
            answered = {(r.node, r.sequence, r.attempt) for item in replies if (r := as_reply(item))}
            for flight in out:
                place = (flight.sequence, flight.attempt)
                if place not in there and (warp.name, *place) not in answered and not flight.done:
                    self.post(warp, flight)

    def _lost_redis(self, error: BaseException) -> None:
        if not self._broken and not self._closing:
            self.course.say(f"Redis does not answer ({error}); trying again until it does")
        if is_gone(self.url):
            self.course.fail(RedisUnavailable(f"{self.url} is gone for good: so is the folder of its socket"))
        self._broken = True
        self._client.close()
        self.bells.reset()

    def _recover(self) -> None:
        self._client.ping()
        self.holdings.make(self._client)
        self._broken = False
        self.course.say("Redis answers again")
        self._audit(*self._mine())
