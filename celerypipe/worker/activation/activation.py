"""An activation: one Celery task run that drains the mailbox of a warped node, and those of its neighbours.

It takes the bell, takes a warm instance, and then: claims what dead activations left, reads, updates, publishes -
until the mailboxes are idle, others need the worker, its term is over, the run ends, or the worker shuts down.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Sequence

import redis

from celerypipe.mailbox import hints
from celerypipe.mailbox.blob.blob import Store
from celerypipe.mailbox.blob.shared_memory import SharedFolder
from celerypipe.mailbox.mailbox import Beginning, is_missing, reading, received
from celerypipe.mailbox.wire import Entry
from celerypipe.redis.connection import Client, accepted
from celerypipe.redis.script import together
from celerypipe.worker.activation.gathering import groups_of
from celerypipe.worker.activation.keeper import IDLE_LOOK, Keeper
from celerypipe.worker.activation.neighbours import Neighbours
from celerypipe.worker.activation.outbox import exchange, flush
from celerypipe.worker.activation.serving import Serving

logger = logging.getLogger(__name__)

#: Work that one read may bring, in seconds by what the nodes took so far, and its bounds in messages.
READ_WORK = 0.020
READ_MOST = 256
#: Messages of a neighbour that was never run here which one read may bring.
READ_UNKNOWN = 8
#: While a batch fills and its wait ends soon, seconds between two reads: Redis itself ends a wait up to 100 ms late.
BATCH_LOOK = 0.002
#: Reasons to stop after which its process may end, or what it holds is with others: what it did not begin goes back,
#: since a claim would take it for what the dead left.
ENDS = ("interrupted", "overran", "shutdown", "recycle")


class Activation:
    """Drains mailboxes, first of all that of ``home``, the node whose bell started it."""

    #: What it was given and did not run comes back by claim.
    waits = False

    def __init__(self, client: Client, neighbours: Neighbours, beginning: Beginning, keeper: Keeper) -> None:
        self.client = client
        self.home = neighbours.home
        self.neighbours = neighbours
        self.keeper = keeper
        self.offset = beginning.now - time.time()
        self._claimed = beginning.claimed
        self._first = beginning.first
        run, shares = self.home.mailbox.run, self.home.record.shared
        signed, names = self.home.mailbox.keyring is not None, self.home.mailbox.names
        folder = SharedFolder.find(run, keep_maps=self.home.lease.keeps_maps) if shares else None
        self.store = Store(run, folder, shares, signed, names)
        self._began = 0.0
        self._leaving = False
        self._held: dict[str, str] = {}

    @property
    def servings(self) -> list[Serving]:
        """What it serves, upstream nodes first: the order in which one read is worked off."""
        return self.neighbours.servings

    def close(self) -> None:
        """Let go of the shared memory that it has mapped: files that are gone take memory until then."""
        if self.store.folder is not None:
            self.store.folder.unmap()

    # -- the loop ---------------------------------------------------------------------------------------------------

    def serve(self) -> str:
        """Drain until there is a reason to stop; return the reason."""
        self._leaving = False
        reason = self._drain()
        if reason in ("others wait", "term"):  # what waits for company is not left to a claim
            self._leaving = True
            self._work([(serving, serving.gathering.take(everything=True)) for serving in self.servings])
        if reason in ENDS:
            for serving in self.servings:
                serving.give_back(serving.gathering.take(everything=True))
        self._flush()
        return reason if self.home.lease.state == "held" else self.home.lease.state

    def _drain(self) -> str:
        start = self._began = busy = looked = time.monotonic()
        claim_at = start + 1.0  # the first time was when the bell was taken
        self.neighbours.adopt()
        self._follow()
        claimed, self._claimed = self._claimed, []
        if reason := self._run_claimed(self.home, claimed):
            return reason
        if len(self.servings) > 1 and (reason := self._claim()):
            return reason
        self._work(self._gather([(self.home, self._begin_with())]))
        while True:
            now = time.monotonic()
            if reason := self._must_stop(now - start):
                return reason
            if now >= claim_at:
                claim_at = now + 1.0
                self.neighbours.adopt()
                self._follow()
                if reason := self._claim():
                    return reason
            if self.neighbours.following.is_due():
                self._follow()
            if batches := self._gather(self._read(self._block())):
                self._work(batches)
                busy = time.monotonic()
            elif (
                not self._gathers
                and (idle := time.monotonic() - busy) > 0
                and (idle > self.home.record.linger or self.home.lease.others_wait(self.client))
            ):
                return "idle"
            # A batch that is not full is no reason to keep others waiting.
            if (batches or self._gathers) and time.monotonic() - looked > self.home.record.slice:
                looked = time.monotonic()
                if self.home.lease.others_wait(self.client):
                    return "others wait"

    def _follow(self) -> None:
        """Do what the run orders of the nodes served here."""
        if self.home.lease.orders:
            self.neighbours.following.obey(self.servings)

    def _begin_with(self) -> list[Entry]:
        """The messages that came with the bell, and what is there to make a whole batch of them."""
        first, self._first = self._first, []
        self._fill_up([(self.home, first)])
        return first

    def _fill_up(self, found: Sequence[tuple[Serving, list[Entry]]]) -> None:
        """Add what is there to make whole batches of what was read."""
        cut = [(each, entries, more) for each, entries in found if (more := -len(entries) % each.gathering.size)]
        asked = [reading([each.mailbox], each.lease.owner, more, None) for each, _, more in cut]
        for (each, entries, _), answer in zip(cut, accepted(self.client.together(*asked)) if cut else (), strict=True):
            mailbox = each.mailbox
            entries += received(self.client, [mailbox], each.lease.owner, answer).get(mailbox.stream, [])

    def _must_stop(self, age: float) -> str:
        lease = self.home.lease
        return lease.must_stop(age, self.home.record.term) or ("overran" if lease.alarm.overran else "")

    @property
    def _age(self) -> float:
        """How much of its term is over, in seconds; one that is leaving works off what it holds."""
        return 0.0 if self._leaving else time.monotonic() - self._began

    def _claim(self) -> str:
        """Take over what dead activations left."""
        servings, owner = list(self.servings), self.home.lease.owner
        asked = [serving.mailbox.claiming(owner, READ_MOST) for serving in servings]
        for serving, claimed in zip(servings, accepted(together(self.client, *asked)), strict=True):
            if reason := self._run_claimed(serving, serving.mailbox.admitted(self.client, owner, claimed)):
                return reason
        return ""

    def _run_claimed(self, serving: Serving, entries: Sequence[Entry]) -> str:
        """Run what a dead activation left, each message by itself: one of them may have killed its process."""
        for entry in entries:
            if reason := self._must_stop(self._age):
                return reason
            if serving.claimed(entry) and serving.lease.state == "held":
                serving.taking_over = True
                self._work([(serving, [entry])])
                serving.taking_over = False
            self._flush()  # the next one may be the one that kills
        return ""

    # -- what to run next -------------------------------------------------------------------------------------------

    @property
    def _gathers(self) -> list[Serving]:
        """Those that hold messages back until a batch is full."""
        return [serving for serving in self.servings if serving.gathering]

    def _gather(self, found: Sequence[tuple[Serving, list[Entry]]]) -> list[tuple[Serving, list[Entry]]]:
        """Hold what was read; return what is to be run now."""
        for serving, entries in found:
            serving.gathering.add(entries)
        return [(each, entries) for each in self._gathers if (entries := each.gathering.take())]

    def _say_what_is_held(self) -> None:
        """Of several nodes a runner takes the oldest entry of the first one for what runs, unless that is held back."""
        limits = [serving.record.timeout for serving in self.servings if serving.record.timeout is not None]
        several = len(self.servings) > 1 and limits
        held = {each.mailbox.node: each.gathering.first for each in self._gathers} if several else {}
        if held != self._held:
            self._held = held
            hints.say_held(self.client, self.home.lease.owner, held, timeout=max(limits, default=0.0))

    def _block(self) -> int | None:
        """Milliseconds that the next read may wait; None: not at all."""
        left = min((serving.gathering.left for serving in self._gathers), default=None)
        if left is None or left > 2 * IDLE_LOOK / 1000:
            return IDLE_LOOK
        time.sleep(min(left, BATCH_LOOK))
        return None

    def _read(self, block: int | None) -> list[tuple[Serving, list[Entry]]]:
        """Publish what is done and read on, in one round trip."""
        self._pause_while_full()
        self.neighbours.leave_unsuited()
        servings, owner, count = self.servings, self.home.lease.owner, self._count()
        try:
            mailboxes = [each.mailbox for each in servings]
            command = reading(mailboxes, owner, count, block)
            answer = exchange(self.client, [each.outbox for each in servings], command)
            found = received(self.client, mailboxes, owner, answer)
            read = [(each, new) for each in servings if (new := found.get(each.mailbox.stream))]
            self._fill_up([(each, new) for each, new in read if len(new) == count])  # cut by what others may read
        except redis.ResponseError as error:
            if not is_missing(error):
                raise
            self.home.lease.state = "lost"  # a mailbox is gone; its runner makes it anew and rings
            return []
        for serving in servings:
            if serving.outbox.refused:
                serving.lease.state = "over"
        return read

    def _count(self) -> int:
        """How many messages of each node a read may bring: whole batches, and at least one, also at first."""
        batch = min(serving.gathering.size for serving in self.servings)
        # One call of a function may take a thousand times as long as the next: that one would wait behind it, although
        # other processes have nothing to do.
        if self.home.mean is None or self.home.record.configuration is None:
            return batch
        means = [serving.mean for serving in self.servings]
        work = sum(mean for mean in means if mean is not None)
        most = READ_UNKNOWN if None in means else READ_MOST
        if (quota := self.home.lease.quota) is not None:  # what is read beyond it waits for another process
            most = min(most, int(min(quota.left, READ_MOST)))
        return max(1, min(most, int(READ_WORK / max(work, 1e-6))) // batch) * batch

    def _work(self, batches: Sequence[tuple[Serving, list[Entry]]]) -> None:
        entries = [entry for _, batch in batches for entry in batch]
        if len(entries) > 1:
            self.keeper.hurry()
        readers = Counter(entry.blob for entry in entries if entry.blob)
        contents = self.store.open(self.client, readers)
        self._say_what_is_held()
        for serving, batch in batches:
            serving.outbox.begin()
            began, before, beyond = time.monotonic(), serving.done, serving.beyond
            warmed = serving.warmed
            groups = deque(groups_of(batch, serving.gathering.size))
            while groups and serving.lease.state == "held" and not self._must_stop(self._age):
                group = groups.popleft()
                again = serving.handle(group, contents, self.store, self.offset)
                groups.extendleft([each] for each in reversed(again))  # else what is left comes back by claim
                if serving.lease.quota is not None:
                    serving.lease.quota.spend(len(group) - len(again))
                for each in again:
                    readers[each.blob] += 1
                for each in group:
                    readers[each.blob] -= 1
                    if not readers[each.blob]:
                        contents.forget(each.blob)  # whether its memory is still mapped is part of the answer
                if serving.outbox.due:
                    self._flush()
            if groups and self._must_stop(self._age) in ENDS:
                serving.give_back([entry for group in groups for entry in group])
            if serving.done > before:
                seconds = time.monotonic() - began - (serving.beyond - beyond) - (serving.warmed - warmed)
                serving.spent(seconds, serving.done - before)

    # -- results ----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Publish what is done."""
        flush(self.client, [serving.outbox for serving in self.servings])
        for serving in self.servings:
            if serving.outbox.refused:
                serving.lease.state = "over"

    def _pause_while_full(self) -> None:
        """Wait while the runner is behind with reading."""
        full = [serving.outbox for serving in self.servings if serving.outbox.full]
        if full:
            self._flush()
        while full and not self._must_stop(0.0):
            time.sleep(0.01)
            behind = self.client.call("XLEN", self.home.mailbox.reply)
            for outbox in full:
                outbox.see(behind)
            full = [outbox for outbox in full if outbox.full]
