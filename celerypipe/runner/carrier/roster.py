"""Who lives: the workers of a run's queues, whether they fit its nodes, and what is said where there are none."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from celerypipe.catalogue.here import code_of_mark
from celerypipe.check import preflight
from celerypipe.check import workers as fitness
from celerypipe.check.finding import Finding, Scene
from celerypipe.errors import ConfigError, NoWorker
from celerypipe.mailbox import hints
from celerypipe.mailbox.blob.shared_memory import is_proven
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.presence import LiveWorkers, Presence, elsewhere, read_presences, stranger
from celerypipe.mailbox.status import read_busy
from celerypipe.redis import keys
from celerypipe.redis.connection import Client
from celerypipe.redis.query import Query, ask
from celerypipe.redis.signing import Keyring
from celerypipe.runner.carrier.holdings import take_back
from celerypipe.runner.stations.course import Course
from celerypipe.runner.warp.warp import Warp

#: Seconds after which a queue without a live worker is said, or decided about.
NO_WORKER_AFTER = 1.5
#: Seconds between two looks at the workers' presence.
LOOK = 1.0
#: And while nothing is out.
IDLE_LOOK = 2.0
#: Seconds for which those that lived are believed to live once Redis was away.
BELIEVED = 15.0
#: Seconds after which a worker that is gone is forgotten, with what was said of it.
FORGOTTEN = 600.0


class Roster:
    """The live workers of the queues of one run, by what they say of themselves; nobody is asked."""

    def __init__(self, course: Course, keyring: Keyring | None = None, declining: Mapping[str, str] = {}) -> None:
        self.course = course
        #: Those that said that they cannot serve this run, by life, and why.
        self._declining = declining
        #: Those that were looked after last.
        self.warps: list[Warp] = []
        self._keyring = keyring
        self._trusted: set[str] = set()
        self._live = LiveWorkers()
        self._presences: list[Presence] = []
        self._looked = 0.0
        self._queues: set[str] = set()
        self._asked: Query | None = None
        self._missing: dict[str, float] = {}
        self._said: set[str] = set()
        #: Workers that get no work, of which that was said, and when they were there last.
        self._strange: dict[str, float] = {}
        self._known: dict[str, set[str]] = {}
        self._fit: dict[str, frozenset[str]] = {}
        #: What was said before the run began, and of the workers that a node has.
        self._told: set[Finding] = set()
        self._findings: dict[str, set[Finding]] = {}
        self._declared: Mapping[str, str] = {}
        self._codes: Mapping[str, str] = {}
        self._sharing: dict[str, bool] = {}
        self._seen: dict[str, tuple[float, Presence]] = {}
        self._believed: list[Presence] = []
        self._believed_until = 0.0

    def told(self, seen: Scene, findings: Iterable[Finding]) -> None:
        """Preflight looked at this, and said all that: it is not said again."""
        self._told.update(findings)
        self._declared = {**self._declared, **seen.declared}
        self._codes = {**self._codes, **seen.codes}
        waiting = (node for node in seen.pipeline.warped if node.warp_configuration.on_no_worker == "wait")
        self._said.update(node.queue for node in waiting if not seen.workers_of(node.queue))
        self._strange = {worker["id"]: time.monotonic() for worker in seen.workers if seen.stranger(worker)}

    def workers(self, queue: str) -> list[Presence]:
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

    def abandoned(self, warp: Warp) -> bool:
        """Has its queue been without a live worker for a while?"""
        since = self._missing.get(warp.queue)
        return since is not None and time.monotonic() - since > NO_WORKER_AFTER

    def look(self, client: Client, warps: Iterable[Warp]) -> list[Warp]:
        """See who lives, at once; return the warps for whom somebody appeared."""
        if (query := self.asking(client.names, warps)) is None:
            return []
        ask(client, [query])
        self.see(client, query)
        self.judge(client)
        return self.newcomers()

    def asking(self, names: keys.Names, warps: Iterable[Warp]) -> Query | None:
        """Return what is to be asked for :meth:`see`, if it is time: seldom while nothing is out."""
        self.warps = list(warps)
        now = time.monotonic()
        queues = {warp.queue for warp in self.warps}
        pause = LOOK if any(warp.flights for warp in self.warps) else IDLE_LOOK
        if queues <= self._queues and now - self._looked < pause:
            return None
        self._looked, self._queues = now, queues
        self._asked = Query(self._live.asking(names, queues))
        return self._asked

    def see(self, client: Client, query: Query) -> None:
        """Read who lives; a few round trips more where somebody is new, missing, or warms up."""
        if query is not self._asked:  # somebody asked for more queues meanwhile
            return
        now = time.monotonic()
        self._presences = self._with_believed(self._understood(self._live.told(client, query.accepted)), now)
        empty = sorted(queue for queue in self._queues if not self.workers(queue))
        # One that ended for its supervisor to start another is not missing yet.
        freeing = hints.freeing(client, empty) if empty else set()
        self._missing = {queue: now if queue in freeing else self._missing.get(queue, now) for queue in empty}
        self._forget(now)
        self._see_warm_ups(client)

    def _forget(self, now: float) -> None:
        """Keep nothing of workers that are gone for good: thousands may come and go in one run."""
        there = {worker["id"] for worker in self._presences}
        self._sharing = {name: shares for name, shares in self._sharing.items() if name in there}
        self._strange = {name: at for name, at in self._strange.items() if at >= now - FORGOTTEN}
        self._trusted &= self._queues

    def judge(self, client: Client) -> None:
        """Check what those know who live; say which queues have had nobody for a while, or fail what waits there.

        The caller holds the lock of the sender.
        """
        for warp in self.warps:
            if workers := self.workers(warp.queue):
                self._said.discard(warp.queue)
                self._check_fitness(warp, workers)
            elif self.abandoned(warp):
                self._nobody(client, warp)

    def newcomers(self) -> list[Warp]:
        """The nodes for whom somebody appeared since this was asked last."""
        return [warp for warp in self.warps if self._has_newcomers(warp)]

    def _see_warm_ups(self, client: Client) -> None:
        """Learn which nodes warm up, for whoever looks at the run; asked only as long as one has had no answer yet."""
        silent = [warp for warp in self.warps if warp.tally.received and not warp.tally.running]
        busy = read_busy(client, self.course.run_id, self._presences) if silent else ()
        warming = {each.node for each in busy if each.warming}
        for warp in self.warps:
            warp.tally.warming = warp.name in warming

    def believe(self) -> None:
        """Redis was away or lost what it held: whoever lived before has until ``BELIEVED`` seconds to say so again.

        Else a run would find no worker for a moment, and ``on_no_worker`` would decide about messages that one holds.
        """
        now = time.monotonic()
        if now >= self._believed_until:
            self._believed = [record for at, record in self._seen.values() if at >= self._looked - 2 * IDLE_LOOK]
            self._believed_until = now + BELIEVED

    def _with_believed(self, found: list[Presence], now: float) -> list[Presence]:
        there = {record["id"] for record in found}
        lately = {name: seen for name, seen in self._seen.items() if seen[0] >= now - BELIEVED}
        # As one: who sends may have found that Redis lost all, and ask for it in its own thread.
        self._seen = lately | {record["id"]: (now, record) for record in found}
        if now >= self._believed_until:
            return found
        return found + [record for record in self._believed if record["id"] not in there]

    def _has_newcomers(self, warp: Warp) -> bool:
        ids = {worker["id"] for worker in self.workers(warp.queue)}
        before, self._known[warp.name] = self._known.get(warp.name, set()), ids
        return bool(ids - before)

    def _understood(self, presences: Iterable[Presence]) -> list[Presence]:
        """Return the workers that understand this run, and it them: a queue where nobody ever did ends the run."""
        ours, texts = [], []
        for worker in presences:
            declined = self._declining.get(Process.read(worker["id"]).life, "")
            if text := stranger(worker, self._keyring) or declined:
                texts.append((worker, f"the worker on {worker['host']}, process {worker['pid']}, {text}"))
                if declined:
                    self._trusted.difference_update(worker["queues"])
            else:
                ours.append(worker)
        self._trusted.update(queue for worker in ours for queue in worker["queues"])
        self._trusted.update(warp.queue for warp in self.warps if warp.answered_at)
        for warp in self.warps:
            found = [(worker["id"], text) for worker, text in texts if warp.queue in worker["queues"]]
            if found and warp.queue not in self._trusted:
                self.course.fail(ConfigError(f"node {warp.name!r}, queue {warp.queue!r}: {found[0][1]}"))
            for worker_id, text in found:
                if worker_id not in self._strange:
                    self.course.say(f"queue {warp.queue!r}: {text}; it gets no work of this run")
                self._strange[worker_id] = time.monotonic()
        return ours

    def _check_fitness(self, warp: Warp, workers: Sequence[Presence]) -> None:
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
        nodes = [other.node for other in self.warps]
        found = fitness.findings(warp.node, workers, self._declared.get(warp.name), nodes)
        mark = warp.node.mark
        code = code_of_mark(mark) if "." in mark else self._codes.get(warp.name, "")  # it may be edited meanwhile
        found += fitness.code_findings(warp.node, workers, code)
        said = self._told | self._findings.get(warp.name, set())
        new, self._findings[warp.name] = [finding for finding in found if finding not in said], {*found}
        if error := preflight.error_of([each for each in new if first or each.check != "version"]):
            self.course.fail(error)
        for finding in new:
            self.course.say(str(finding))

    def _nobody(self, client: Client, warp: Warp) -> None:
        queue, fails = warp.queue, warp.limits.on_no_worker == "fail"
        flights = [flight for flight in list(warp.flights.values()) if flight.sent_at] if fails else []
        if not flights if fails else queue in self._said:
            return  # where else workers are is not asked for at each look
        others, unbuilt = elsewhere(client, queue), hints.unbuilt(client, queue)
        missing = fitness.missing(warp.node, client.address, read_presences(client), others, unbuilt)
        if not fails:
            self._said.add(queue)
            self.course.say(str(missing))
        else:
            text = f"{missing.text}; start one where it shall run: {missing.mend}"
            mailbox = Mailbox(self.course.run_id, warp.name, names=client.names)
            if warp.retained is not None:
                warp.retained.doubtful |= not all(flight.entry for flight in flights)  # nobody knows where those are
            for flight in take_back(client, mailbox, flights, stateful=warp.retained is not None):
                warp.failed(flight, NoWorker(f"{warp.name}: {text}", node=warp.name, message_id=flight.message.id))
