"""Three threads of a run that move the messages of all its warped nodes through Redis.

The *post* thread appends to mailboxes and rings bells; the *keep* thread renews leases, looks who lives, rings again
and audits; the *reply* thread reads the one reply stream of the run. What can wait for Redis happens in these threads
only, never in the one that watches time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from celerypipe import codec
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check import preflight
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import RedisUnavailable, RunCancelled
from celerypipe.heartbeat.heartbeat import Heartbeat
from celerypipe.mailbox.blob.blob import Blobs, Store
from celerypipe.mailbox.liveness import words_of_run
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.record import SILENT, Record
from celerypipe.message.files import arriving
from celerypipe.message.message import Message
from celerypipe.redis.connection import (
    CALL_TIMEOUT,
    Broken,
    Client,
    Command,
    OneLine,
    connect,
    explained,
    is_gone,
    said,
)
from celerypipe.redis.keys import LOG_TTL
from celerypipe.redis.query import Query, ask
from celerypipe.redis.script import call
from celerypipe.runner.carrier.audit import Audit
from celerypipe.runner.carrier.bells import Bells, oldest_of
from celerypipe.runner.carrier.cargo import Cargo
from celerypipe.runner.carrier.counting import Counting
from celerypipe.runner.carrier.doubts import Doubts
from celerypipe.runner.carrier.files import FileSender
from celerypipe.runner.carrier.holdings import Holdings, take_back
from celerypipe.runner.carrier.listener import CarrierListener
from celerypipe.runner.carrier.replies import READ_BLOCK, Replies
from celerypipe.runner.carrier.requests import requests_in, taking_requests
from celerypipe.runner.carrier.roster import Roster
from celerypipe.runner.carrier.sender import Sender
from celerypipe.runner.carrier.states import States
from celerypipe.runner.carrier.whereabouts import Whereabouts
from celerypipe.runner.logs.incoming import Incoming
from celerypipe.runner.provisions import Provisions
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.traces import best
from celerypipe.runner.warp.circuit import Circuit
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp

#: Seconds between two rounds of keeping: leases, bells, presences.
TICK = 0.5
#: So many paths of messages are kept once the run is over.
MOST_PATHS = 30
#: And while nothing is out.
IDLE_TICK = 1.0


class RedisCarrier:
    """Moves messages between the warps of one run and the workers. ``budget`` bounds the bytes in flight.

    With a keyring all that it sends is signed, and what comes back unsigned is refused.
    """

    def __init__(self, course: Course, provisions: Provisions, listener: CarrierListener) -> None:
        self.course = course
        assert provisions.redis is not None  # noqa: S101  # without one nothing is carried
        self.address = address = provisions.redis
        self.budget = provisions.budget
        self.keyring = keyring = provisions.keyring
        self._listener = listener
        self.warps: dict[str, Warp] = {}
        self.blobs = Blobs(Store(course.run_id, signed=keyring is not None, names=address.names))
        self.files = FileSender(address, course.over.wait, course.say)
        self.cargo = Cargo(address, self.blobs, course.say, may_share=provisions.shared_memory)
        self.holdings = Holdings(course.run_id, self.blobs, keyring)
        self.mailboxes = self.holdings.mailboxes
        self.counting = Counting(course, address.names, self.warps)
        self.circuits: dict[str, Circuit] = {}
        self._about: dict[str, Any] = {}
        self._bytes = 0
        self._counting = threading.Lock()
        self._closing = False
        self._ended = threading.Event()
        self._told: set[type[BaseException]] = set()
        self._client: Client = connect(address, name="celerypipe-post", kind=OneLine)
        doubts = Doubts(course, keyring, self.warps)
        self.roster = Roster(course, keyring, doubts.declining)
        self.whereabouts = Whereabouts(address, self.roster)
        self.bells = Bells(course, self.roster, self.whereabouts, address.names, keyring)
        self.sender = Sender(self._client, self.bells, self.mailboxes, self)
        show = provisions.logs
        #: From which level on workers send what they log.
        self.level = provisions.level if show is not None else SILENT
        self.incoming = Incoming(course.run_id, keyring, show, course.hidden) if show is not None else None
        self.replies = Replies(
            course,
            self.warps,
            self.cargo,
            self.holdings,
            self.sender,
            self.whereabouts,
            doubts,
            self.incoming,
            listener,
        )
        self.states = States(course, self.holdings, self.sender, doubts)
        self.audit = Audit(self.holdings, self.states, self.sender, doubts)
        #: Renews the lease of the run, also while a node here holds the interpreter lock.
        self._heartbeat = Heartbeat(address, words_of_run(address.names, course.run_id))
        self._threads: list[threading.Thread] = []

    # -- life -------------------------------------------------------------------------------------------------------

    def inspect(self, pipeline: Pipeline, catalogue: Catalogue) -> None:
        """Preflight: say what is found, and raise what the run cannot begin with."""
        with explained(self.address):
            seen = preflight.look(
                self._client, self.address, pipeline, catalogue, budget=self.budget, keyring=self.keyring
            )
        findings = preflight.inspect(seen)
        self.roster.told(seen, findings)
        self._about = {"pipeline": pipeline.name, "host": socket.gethostname(), "pid": os.getpid()}
        self._about["marks"] = {node.name: node.mark for node in pipeline.nodes}
        self._about["links"] = [(link.source, link.target) for link in pipeline.links]
        if error := preflight.error_of(findings):
            raise error
        for finding in findings:
            if finding.severity == "warning":
                self.course.say(str(finding))

    def open(self, warps: Iterable[Warp], records: Mapping[str, Record]) -> None:
        """Make the run's keys, look who is there; again for further warps. Raises :class:`RedisUnavailable`."""
        new = [*warps]
        nodes = {warp.name: {"mark": warp.node.mark, "queue": warp.queue} for warp in (*self.warps.values(), *new)}
        self.holdings.plan(records, {**self._about, "nodes": nodes})
        for warp in new:
            warp.circuit = self.circuits.setdefault(warp.queue, Circuit(warp.queue, self.course.say))
            self.warps[warp.name] = warp  # from here on it is looked after
        with explained(self.address):
            self.roster.look(self._client, self._mine())
            self._tell_who_lives()
            self.holdings.make(self._client)
            for warp in self._mine():
                self.states.watch(self._client, warp)
        self._heartbeat.start()

    def start(self) -> None:
        """Start its threads."""
        for name, work in (("post", self._post_loop), ("keep", self._keep_loop), ("reply", self.replies.loop)):
            thread = threading.Thread(target=self._guarded, args=(work,), name=f"celerypipe-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self, state: str) -> None:
        """Say that the run is ``finished``, ``failed`` or ``cancelled``, remove its keys, end the threads."""
        if self.incoming is not None:
            self.incoming.close()
        self._closing = True
        self._ended.set()
        self.replies.stop()
        self.sender.close()
        last = connect(self.address, name="celerypipe-close", timeout=2.0)
        with contextlib.suppress(*Broken):  # an entry ends the wait for a reply; without, it ends within a second
            last.xadd(last.names.reply(self.course.run_id), {"n": ""}, nomkstream=True)
        for thread in self._threads:
            thread.join(READ_BLOCK + 2.0)
        self._heartbeat.end(last=False)
        try:
            slots = {name: self.bells.most_slots(name) for name in self.warps}
            self.holdings.remove(last, state, slots=slots)
            if paths := self.course.traces.to_list():
                last.set(last.names.trace(self.course.run_id), msgspec.json.encode(best(paths, MOST_PATHS)), px=LOG_TTL)
            self.states.leave(last)
        except Broken as error:
            self.course.say(f"Redis does not answer ({error}); the keys of this run expire in a minute")
        self.sender.lock.acquire(timeout=READ_BLOCK)  # a node's thread may be sending this moment
        for each in (last, self._client, self.replies, self.whereabouts):
            each.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        arriving.set(self.files.place)
        try:
            work()
        except Exception as error:  # noqa: BLE001  # a defect of ours must end the run, not hang it
            self.course.fail(error)

    # -- what warps ask for -----------------------------------------------------------------------------------------

    by_reference = True

    def load(self, warp: Warp, flight: Flight, message: codec.Apart) -> None:
        if message.files:
            # What becomes of it may be wanted at any time: by a call, or by a node that remembers, as any might that
            # nobody knows yet.
            may_remember = warp.keeps_sealed or warp.retained is not None or not self.roster.slots(warp.queue)
            self.files.send(message.files, keep=may_remember)
        self.cargo.load(warp, flight, message)

    def here(self, message: Message) -> Message | None:
        return self.cargo.here(message)

    def room(self, size: int) -> bool:
        return self._bytes == 0 or self._bytes + size <= self.budget

    def post(self, warp: Warp, flight: Flight, *, wait: bool = True) -> None:
        if not flight.sent_at:
            with self._counting:
                self._bytes += flight.size
        self.sender.put(warp, flight, wait=wait)

    def settled(self, warp: Warp, flight: Flight) -> None:
        if flight.sent_at:
            with self._counting:
                self._bytes -= flight.size

    def withdraw(self, warp: Warp, flight: Flight) -> tuple[str, list[Flight]] | None:
        taken = self.whereabouts.withdraw(self._nearby(warp), warp, flight)
        if taken is None:
            return None
        where, batch, behind = taken
        for other, held_up in behind:
            other.send_unbegun(held_up)
        return where, batch

    def began(self, warp: Warp, flight: Flight) -> float:
        return self.whereabouts.began(self._nearby(warp), warp, flight)

    def _nearby(self, warp: Warp) -> dict[Warp, Mailbox]:
        """The nodes that share its queue, upstream ones first, with their mailboxes."""
        near = [other for other in list(self.warps.values()) if other.queue == warp.queue]
        return {other: self.mailboxes[other.name] for other in near}

    def asking(self) -> Client:
        """Return a client of its own, for who waits for answers; to be closed."""
        return connect(self.address, name="celerypipe-ask", timeout=CALL_TIMEOUT)

    def holders(self, client: Client, warp: Warp) -> list[str]:
        """Return the activations that serve a node now."""
        if warp.name not in self.mailboxes:  # the run is about to begin
            return []
        bell = self.mailboxes[warp.name].bell
        bells: Any = client.mget([f"{bell}{slot}" for slot in range(max(1, self.bells.most_slots(warp.name)))])
        return [each.decode(errors="replace") for each in bells if each and not each.startswith(b"r:")]

    def slots(self, warp: Warp) -> int:
        return self.roster.slots(warp.queue)

    # -- the post thread --------------------------------------------------------------------------------------------

    def _post_loop(self) -> None:
        while self.sender.rest():
            with self.sender.lock:
                try:
                    if self.sender.halted:
                        self._recover()
                    self.sender.send()
                    if grown := [warp for warp in self.bells.grown() if warp.carrier is self]:
                        ringings = self.bells.ringing(self.mailboxes, grown, {})
                        ask(self._client, [each.query for each in ringings])
                        self._send_tasks(self._client, self.bells.rung(ringings))
                except Broken as error:
                    self.redis_lost(error)

    # -- the thread that keeps what the run holds --------------------------------------------------------------------

    def _keep_loop(self) -> None:
        client = connect(self.address, name="celerypipe-keep", kind=OneLine)
        try:
            while not self._ended.wait(TICK if any(warp.flights for warp in self._mine()) else IDLE_TICK):
                self.whereabouts.rest()
                if self.sender.halted:
                    continue
                try:
                    self._keep(client)
                except Broken as error:
                    client.close()
                    with self.sender.lock:
                        self.redis_lost(error)
        finally:
            client.close()

    def _keep(self, client: Client) -> None:
        """Let all of it live on, see who lives, and ring: a few round trips, however many nodes there are.

        Nobody who sends waits for them: what comes of the answers is done with the lock of the sender.
        """
        mine = self._mine()
        lease = Query(self.holdings.renewing())
        counted = [Query(batch) for batch in [self.counting.due()] if batch is not None]
        look = self.roster.asking(client.names, mine)
        states = self.states.asking(mine)
        batches = self.bells.asking_batches(self.mailboxes, mine)
        blobs = [Query(command) for command in self.holdings.renewing_blobs()]
        has_letters = self.course.folder is not None
        requests = [Query(taking_requests(client.names, self.course.run_id))] if has_letters else []
        looks = [look] if look is not None else []
        ask(client, [lease, *counted, *looks, *states.values(), *batches.values(), *blobs, *requests])
        for each in counted:
            self.counting.answered(each.answer)
        before, complete = lease.accepted
        if look is not None:
            self.roster.see(client, look)
        news = self.states.news(client, {warp: query.accepted for warp, query in states.items()})
        lost = self.files.renew(client)
        with self.sender.lock:
            if self.sender.halted or self._closing:
                return
            if before == b"cancelled":
                self.course.fail(RunCancelled(f"run {self.course.run_id} was cancelled from outside"))
            if before is None or not complete:
                self._look_for_all()
            if lost:
                self.course.spawn("files", self.files.send_again, lost)
            newcomers: list[Warp] = []
            if look is not None:
                self.roster.judge(self._client)
                self._tell_who_lives()
                newcomers = self.roster.newcomers()
            if not self.holdings.is_told:
                self.holdings.write_records(self._client)
            for warp, query in states.items():
                self.states.see(self._client, warp, query.accepted, news.get(warp))
            busy = [warp for warp in mine if self._goes_on(warp)]
            self._audit([warp for warp in busy if self.audit.is_due(warp, oldest_of(warp))])
            ringings = self.bells.ringing(self.mailboxes, busy, batches, newcomers)
        ask(client, [each.query for each in ringings])
        with self.sender.lock:
            tasks = self.bells.rung(ringings)
        self._send_tasks(client, tasks)
        if ringings:
            self.sender.wake()  # it may be worth more slots in a moment
        for letters in filter(None, (requests_in(each.answer) for each in requests)):
            self._listener.replay_requested(letters)

    def _look_for_all(self) -> None:
        """Something was missing: it may be what was about to be made. The caller holds the lock."""
        before, complete = call(self._client, self.holdings.renewing())
        if before is None or not complete:
            self.mailbox_lost()

    def _send_tasks(self, client: Client, tasks: Sequence[Command]) -> None:
        if tasks:
            self.bells.sent(client.together(*tasks))

    def _tell_who_lives(self) -> None:
        for warp in self._mine():
            self._listener.workers_seen(self._client, warp.name, self.roster.workers(warp.queue))
        self._share()
        for queue, circuit in self.circuits.items():
            circuit.see({worker["id"] for worker in self.roster.workers(queue)})

    def _share(self) -> None:
        """Use shared memory as long as all workers see it."""
        mine = self._mine()
        self.cargo.share(able=bool(mine) and all(self.roster.share_memory(warp.queue) for warp in mine))

    def mailbox_lost(self) -> None:
        """Something is missing in Redis: make it anew, and send again what went with it."""
        self.roster.believe()
        self.files.doubt()
        self.holdings.make(self._client)
        self._audit([warp for warp in self._mine() if warp.retained is None])
        for warp in self._mine():
            self.states.rewind(self._client, warp, "Redis lost its messages or its state")

    def _mine(self) -> list[Warp]:
        """The warps whose messages still travel through Redis; ``on_no_worker: local`` takes some elsewhere."""
        return [warp for warp in list(self.warps.values()) if warp.carrier is self]

    def give_away(self, warp: Warp) -> list[Flight]:
        """Take back all that is out for a warp that another carrier serves from now on."""
        flights = [flight for _, flight in sorted(warp.flights.items()) if flight.sent_at]
        for flight in flights:
            self.withdraw(warp, flight)
            self.settled(warp, flight)
            flight.message = self.here(flight.message) or flight.message
            flight.data, flight.blob, flight.note = None, None, None
        self.sender.forget(warp)  # also what was taken back behind another one, to be sent again
        return flights

    def _goes_on(self, warp: Warp) -> bool:
        """Look after the messages of a node that are out; does it go on with workers? The caller holds the lock."""
        if not warp.flights:
            return False
        circuit = self.circuits[warp.queue]
        is_open = circuit.state == "open"
        nobody = self.roster.abandoned(warp) or (is_open and not circuit.deadly)
        if nobody and warp.limits.on_no_worker == "local":
            self._listener.queue_abandoned(warp)
            if warp.carrier is not self:
                return False
        if is_open:
            self._give_up_waiting(warp)
        return True

    def _give_up_waiting(self, warp: Warp) -> None:
        """Nobody answers on its queue: what nobody was given yet does not wait until its own time is over."""
        flights = [f for f in list(warp.flights.values()) if f.entry and not (f.probe or f.remaking or f.errand)]
        retained = warp.retained
        # What is answered stays with its activation until the next snapshot.
        most = len(warp.flights) + (len(retained.flights) if retained is not None else 0)
        given = self.mailboxes[warp.name].given_ids(self._client, most)
        waiting = [flight for flight in flights if flight.entry not in given]
        for flight in take_back(self._client, self.mailboxes[warp.name], waiting, stateful=retained is not None):
            refusal = warp.refusal(flight, probe=False)
            if refusal is not None:
                warp.failed(flight, refusal)

    def _audit(self, warps: Sequence[Warp]) -> None:
        if warps:
            for warp, flight in self.audit.missing(self._client, warps):
                self.post(warp, flight, wait=False)

    def redis_lost(self, error: BaseException) -> None:
        """Say so, and leave it to the post thread to try again."""
        if type(error) not in self._told and not self._closing:  # it may be gone first, and loading after that
            self._told.add(type(error))
            self.course.say(f"{said(error)}; trying again until it works")
        if is_gone(self.address):
            self.course.fail(
                RedisUnavailable(f"{self.address} does not come back: the folder of its socket was removed")
            )
        self.sender.halted = True
        self.sender.wake()
        self._client.close()

    def _recover(self) -> None:
        self._client.ping()
        self.holdings.make(self._client)
        self.sender.halted = False
        self._told.clear()
        self.roster.believe()
        self.course.say("Redis works again")
        mine = self._mine()
        self._audit([warp for warp in mine if warp.retained is None or warp.limits.pinned])
        for warp in mine:
            if not warp.limits.pinned:
                self.states.rewind(self._client, warp, "Redis was away")
