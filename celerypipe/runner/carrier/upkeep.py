"""What a run holds in Redis, kept by a thread: renewed, looked at, rung for; and made anew where it was lost."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from celerypipe.errors import RedisUnavailable, RunCancelled
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Client, Command, OneLine, connect, is_gone, said
from celerypipe.redis.query import Query, ask
from celerypipe.redis.script import call
from celerypipe.runner.carrier.audit import Audit
from celerypipe.runner.carrier.bells import Bells, oldest_of
from celerypipe.runner.carrier.cargo import Cargo
from celerypipe.runner.carrier.counting import Counting
from celerypipe.runner.carrier.files import FileSender
from celerypipe.runner.carrier.holdings import Holdings, take_back
from celerypipe.runner.carrier.listener import CarrierListener
from celerypipe.runner.carrier.requests import requests_in, taking_requests
from celerypipe.runner.carrier.roster import Roster
from celerypipe.runner.carrier.sender import Sender
from celerypipe.runner.carrier.states import States
from celerypipe.runner.carrier.whereabouts import Whereabouts
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.carriage import Carrier
from celerypipe.runner.warp.circuit import Circuit
from celerypipe.runner.warp.warp import Warp

#: Seconds between two rounds of keeping: leases, bells, presences.
TICK = 0.5
#: And while nothing is out.
IDLE_TICK = 1.0


@dataclass(eq=False, repr=False)
class Upkeep:
    """Keeps what the parts of a carrier have there. ``client`` is that of the sender, used under its lock."""

    course: Course
    address: Address
    carrier: Carrier[Warp]
    listener: CarrierListener
    client: Client
    warps: Mapping[str, Warp]
    circuits: Mapping[str, Circuit]
    holdings: Holdings
    files: FileSender
    cargo: Cargo
    counting: Counting
    roster: Roster
    whereabouts: Whereabouts
    bells: Bells
    sender: Sender
    states: States
    audit: Audit
    #: The run closes.
    ended: threading.Event
    _told: set[type[BaseException]] = field(default_factory=set, init=False)

    def loop(self) -> None:
        """What its thread does, until the run closes."""
        client = connect(self.address, name="celerypipe-keep", kind=OneLine)
        try:
            while not self.ended.wait(TICK if any(warp.flights for warp in self.mine()) else IDLE_TICK):
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
        mine = self.mine()
        lease = Query(self.holdings.renewing())
        counted = [Query(batch) for batch in [self.counting.due()] if batch is not None]
        look = self.roster.asking(client.names, mine)
        states = self.states.asking(mine)
        batches = self.bells.asking_batches(self.holdings.mailboxes, mine)
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
            if self.sender.halted or self.ended.is_set():
                return
            if before == b"cancelled":
                self.course.fail(RunCancelled(f"run {self.course.run_id} was cancelled from outside"))
            if before is None or not complete:
                self._look_for_all()
            if lost:
                self.course.spawn("files", self.files.send_again, lost)
            newcomers: list[Warp] = []
            if look is not None:
                self.roster.judge(self.client)
                self.tell_who_lives()
                newcomers = self.roster.newcomers()
            if not self.holdings.is_told:
                self.holdings.write_records(self.client)
            for warp, query in states.items():
                self.states.see(self.client, warp, query.accepted, news.get(warp))
            busy = [warp for warp in mine if self._goes_on(warp)]
            self._audit([warp for warp in busy if self.audit.is_due(warp, oldest_of(warp))])
            ringings = self.bells.ringing(self.holdings.mailboxes, busy, batches, newcomers)
        ask(client, [each.query for each in ringings])
        with self.sender.lock:
            tasks = self.bells.rung(ringings)
        self.send_tasks(client, tasks)
        if ringings:
            self.sender.wake()  # it may be worth more slots in a moment
        for letters in filter(None, (requests_in(each.answer) for each in requests)):
            self.listener.replay_requested(letters)

    def _look_for_all(self) -> None:
        """Something was missing: it may be what was about to be made. The caller holds the lock."""
        before, complete = call(self.client, self.holdings.renewing())
        if before is None or not complete:
            self.mailbox_lost()

    def send_tasks(self, client: Client, tasks: Sequence[Command]) -> None:
        if tasks:
            self.bells.sent(client.together(*tasks))

    def tell_who_lives(self) -> None:
        for warp in self.mine():
            self.listener.workers_seen(self.client, warp.name, self.roster.workers(warp.queue))
        self._share()
        for queue, circuit in self.circuits.items():
            circuit.see({worker["id"] for worker in self.roster.workers(queue)})

    def _share(self) -> None:
        """Use shared memory as long as all workers see it."""
        mine = self.mine()
        self.cargo.share(able=bool(mine) and all(self.roster.share_memory(warp.queue) for warp in mine))

    def mailbox_lost(self) -> None:
        """Something is missing in Redis: make it anew, and send again what went with it."""
        self.roster.believe()
        self.files.doubt()
        self.holdings.make(self.client)
        self._audit([warp for warp in self.mine() if warp.retained is None])
        for warp in self.mine():
            self.states.rewind(self.client, warp, "Redis lost its messages or its state")

    def mine(self) -> list[Warp]:
        """The warps whose messages still travel through Redis; ``on_no_worker: local`` takes some elsewhere."""
        return [warp for warp in list(self.warps.values()) if warp.carrier is self.carrier]

    def _goes_on(self, warp: Warp) -> bool:
        """Look after the messages of a node that are out; does it go on with workers? The caller holds the lock."""
        if not warp.flights:
            return False
        circuit = self.circuits[warp.queue]
        is_open = circuit.state == "open"
        nobody = self.roster.abandoned(warp) or (is_open and not circuit.deadly)
        if nobody and warp.limits.on_no_worker == "local":
            self.listener.queue_abandoned(warp)
            if warp.carrier is not self.carrier:
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
        given = self.holdings.mailboxes[warp.name].given_ids(self.client, most)
        waiting = [flight for flight in flights if flight.entry not in given]
        for flight in take_back(
            self.client, self.holdings.mailboxes[warp.name], waiting, stateful=retained is not None
        ):
            refusal = warp.refusal(flight, probe=False)
            if refusal is not None:
                warp.failed(flight, refusal)

    def _audit(self, warps: Sequence[Warp]) -> None:
        if warps:
            for warp, flight in self.audit.missing(self.client, warps):
                self.carrier.post(warp, flight, wait=False)

    def redis_lost(self, error: BaseException) -> None:
        """Say so, and leave it to the post thread to try again."""
        if type(error) not in self._told and not self.ended.is_set():  # it may be gone first, and loading after that
            self._told.add(type(error))
            self.course.say(f"{said(error)}; trying again until it works")
        if is_gone(self.address):
            self.course.fail(
                RedisUnavailable(f"{self.address} does not come back: the folder of its socket was removed")
            )
        self.sender.halted = True
        self.sender.wake()
        self.client.close()

    def recover(self) -> None:
        self.client.ping()
        self.holdings.make(self.client)
        self.sender.halted = False
        self._told.clear()
        self.roster.believe()
        self.course.say("Redis works again")
        mine = self.mine()
        self._audit([warp for warp in mine if warp.retained is None or warp.limits.pinned])
        for warp in mine:
            if not warp.limits.pinned:
                self.states.rewind(self.client, warp, "Redis was away")
