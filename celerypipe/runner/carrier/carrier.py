"""Three threads of a run that move the messages of all its warped nodes through Redis.

The *post* thread appends to mailboxes and rings bells; the *keep* thread (``upkeep``) renews leases, looks who lives,
rings again and audits; the *reply* thread reads the one reply stream of the run. What can wait for Redis happens in
these threads only, never in the one that watches time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from celerypipe import codec
from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check import preflight
from celerypipe.definition.pipeline import Pipeline
from celerypipe.heartbeat.heartbeat import Heartbeat
from celerypipe.mailbox.blob.blob import Blobs, Store
from celerypipe.mailbox.liveness import words_of_run
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.record import SILENT, Record
from celerypipe.message.files import arriving
from celerypipe.message.message import Message
from celerypipe.redis.connection import CALL_TIMEOUT, Broken, Client, OneLine, connect, explained
from celerypipe.redis.keys import LOG_TTL
from celerypipe.redis.query import ask
from celerypipe.runner.carrier.audit import Audit
from celerypipe.runner.carrier.bells import Bells
from celerypipe.runner.carrier.cargo import Cargo
from celerypipe.runner.carrier.counting import Counting
from celerypipe.runner.carrier.doubts import Doubts
from celerypipe.runner.carrier.files import FileSender
from celerypipe.runner.carrier.holdings import Holdings
from celerypipe.runner.carrier.listener import CarrierListener
from celerypipe.runner.carrier.replies import READ_BLOCK, Replies
from celerypipe.runner.carrier.roster import Roster
from celerypipe.runner.carrier.sender import Sender
from celerypipe.runner.carrier.states import States
from celerypipe.runner.carrier.upkeep import Upkeep
from celerypipe.runner.carrier.whereabouts import Whereabouts
from celerypipe.runner.logs.incoming import Incoming
from celerypipe.runner.provisions import Provisions
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.traces import best
from celerypipe.runner.warp.circuit import Circuit
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp

#: So many paths of messages are kept once the run is over.
MOST_PATHS = 30


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
        self._ended = threading.Event()
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
        self.upkeep = Upkeep(
            course=course,
            address=address,
            carrier=self,
            listener=listener,
            client=self._client,
            warps=self.warps,
            circuits=self.circuits,
            holdings=self.holdings,
            files=self.files,
            cargo=self.cargo,
            counting=self.counting,
            roster=self.roster,
            whereabouts=self.whereabouts,
            bells=self.bells,
            sender=self.sender,
            states=self.states,
            audit=Audit(self.holdings, self.states, self.sender, doubts),
            ended=self._ended,
        )
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
            self.roster.look(self._client, self.upkeep.mine())
            self.upkeep.tell_who_lives()
            self.holdings.make(self._client)
            for warp in self.upkeep.mine():
                self.states.watch(self._client, warp)
        self._heartbeat.start()

    def start(self) -> None:
        """Start its threads."""
        for name, work in (("post", self._post_loop), ("keep", self.upkeep.loop), ("reply", self.replies.loop)):
            thread = threading.Thread(target=self._guarded, args=(work,), name=f"celerypipe-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self, state: str) -> None:
        """Say that the run is ``finished``, ``failed`` or ``cancelled``, remove its keys, end the threads."""
        if self.incoming is not None:
            self.incoming.close()
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

    def redis_lost(self, error: BaseException) -> None:
        self.upkeep.redis_lost(error)

    def mailbox_lost(self) -> None:
        self.upkeep.mailbox_lost()

    # -- the post thread --------------------------------------------------------------------------------------------

    def _post_loop(self) -> None:
        while self.sender.rest():
            with self.sender.lock:
                try:
                    if self.sender.halted:
                        self.upkeep.recover()
                    self.sender.send()
                    if grown := [warp for warp in self.bells.grown() if warp.carrier is self]:
                        ringings = self.bells.ringing(self.mailboxes, grown, {})
                        ask(self._client, [each.query for each in ringings])
                        self.upkeep.send_tasks(self._client, self.bells.rung(ringings))
                except Broken as error:
                    self.redis_lost(error)
