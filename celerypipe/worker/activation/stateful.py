"""An activation of a stateful node: one at a time, messages in order, and a state that outlives its process.

It enters the fence, makes the state (:mod:`celerypipe.worker.activation.memory`), and runs each message when its turn
has come. Results leave at once; their messages leave the mailbox with the next snapshot. A message that failed, was
interrupted or was withdrawn leaves nothing in the state: it is made again without it, and what comes after it waits
until the runner has sent it once more or has said that it gave it up.
"""

from __future__ import annotations

import math
import time
from typing import Any

import redis

from celerypipe.mailbox.fence import GIVEN_UP
from celerypipe.mailbox.mailbox import Beginning, is_missing, reading, received
from celerypipe.mailbox.wire import Entry
from celerypipe.redis.connection import Client, Trouble
from celerypipe.worker.activation.alarm import Interrupted
from celerypipe.worker.activation.fenced import StatefulServing
from celerypipe.worker.activation.following import Following
from celerypipe.worker.activation.keeper import IDLE_LOOK, Keeper
from celerypipe.worker.activation.memory import Memory, Missing, StateUnusable

#: Messages that one read brings.
READ = 64
#: Handing a state over takes a snapshot and a restore: it is worth so many times what that takes.
WORTH = 10


class StatefulActivation:
    """Serves one stateful node; a pinned one until its run is over."""

    def __init__(
        self, client: Client, serving: StatefulServing, beginning: Beginning, keeper: Keeper, following: Following
    ) -> None:
        self.client = client
        self.serving = serving
        self.record = serving.record
        self.term = math.inf if serving.record.pinned else serving.record.term
        self.lease = serving.lease
        self.memory = Memory(serving)
        self.keeper = keeper
        self._following = following
        self._claim_at = 0.0
        self.offset = beginning.now - time.time()

    def close(self) -> None:
        """Let go of the shared memory that it has mapped."""
        if self.memory.store.folder is not None:
            self.memory.store.folder.unmap()

    @property
    def waits(self) -> bool:
        """Does it hold messages that it did not run?"""
        return bool(self.memory.held)

    def serve(self) -> str:
        """Serve until there is a reason to stop; return the reason."""
        try:
            reason = self._drain()
            if self.lease.state == "held":
                self._leave()
        except StateUnusable as trouble:
            self.serving.fence.say(self.client, self.lease.owner, "trouble", trouble.said)
            return "trouble"
        except Missing:
            return "lost"
        except Interrupted as interrupt:  # while a message was run again
            return interrupt.reason
        except redis.ResponseError as error:
            if not is_missing(error):
                raise
            return "lost"  # the mailbox is gone; its runner makes it anew and rings
        return reason if self.lease.state == "held" else self.lease.state

    def _drain(self) -> str:
        start = busy = looked = time.monotonic()
        self._claim_at = start + 1.0
        self._follow()
        if not self.memory.make():
            return "lost"
        while True:
            now = time.monotonic()
            reason = self.lease.must_stop(now - start, self.term)
            if reason and not (reason == "interrupted" and self.record.pinned):  # nobody else could make that again
                return reason
            self._follow()
            if self._is_doubtful():
                if not self._make_again():
                    return "lost"
                continue
            self._claim(now)
            if self._next() or self._receive():
                busy = time.monotonic()
            elif not self.waits and self._may_leave(time.monotonic() - busy):
                return "idle"
            if self.memory.is_due:
                self.memory.save()
            if time.monotonic() - looked > max(self.record.slice, WORTH * self.memory.cost):
                looked = time.monotonic()
                if not self.record.pinned and self.lease.others_wait(self.client):
                    return "others wait"

    def _follow(self) -> None:
        """Do what the run orders; what was run before that is in the state, and not run again after it."""
        if self._following.is_due():
            self.memory.save()
            self._following.obey([self.serving])

    def _claim(self, now: float) -> None:
        if now >= self._claim_at:  # a process that woke up late may have read on
            self._claim_at = now + 1.0
            self.memory.hold(self.serving.mailbox.claim(self.client, self.lease.owner, READ))

    def _may_leave(self, idle: float) -> bool:
        return not self.record.pinned and (idle > self.record.linger or self.lease.others_wait(self.client))

    # -- messages ---------------------------------------------------------------------------------------------------

    def _next(self) -> bool:
        """Run the message whose turn it is, if it is here."""
        entry = self.memory.held.pop(self.memory.last + 1, None)
        if entry is None:
            return False
        if entry.attempt == GIVEN_UP or self._run(entry):
            self.memory.ran(entry)
            if self.serving.box.due or entry.id in self.memory.suspects:
                self.serving.flush()
        return True

    def _run(self, entry: Entry) -> bool:
        """Run a message; False: it left nothing in the state, or nobody knows what."""
        contents = self.memory.contents(entry)
        if entry.blob and (gone := contents.gone(entry.blob)):
            self.serving.lost(entry, gone)
            self.serving.flush()
            return False
        if entry.id in self.memory.suspects:
            self.serving.flush()  # if the process dies now, it dies of this one
            if self._is_doubtful() or not self.serving.claimed(entry):
                return False
        if self.serving.box.waiting:
            self.keeper.hurry()  # they are published, however long this one takes
        began, warmed = time.monotonic(), self.serving.warmed
        self.serving.handle([entry], contents, self.memory.store, self.offset)
        if self.lease.quota is not None:
            self.lease.quota.spend(1)
        if self.serving.doubtful:
            return False
        self.serving.spent(time.monotonic() - began - (self.serving.warmed - warmed), 1)
        return True

    def _receive(self) -> bool:
        """Publish what is done and wait a moment for more."""
        box, mailbox = self.serving.box, self.serving.mailbox
        while box.full and not self.lease.must_stop(0.0, self.term):
            self.serving.flush()
            time.sleep(0.01)
            box.see(self.client.call("XLEN", mailbox.reply))
        answer: Any = None
        try:
            answer = box.exchange(self.client, reading([mailbox], self.lease.owner, READ, IDLE_LOOK))
        except Trouble:  # a pinned node would be lost with this activation
            self.memory.regain()
        if box.refused:
            self.lease.state = "over"
        if box.torn or self.lease.state != "held":
            return False
        found = received(self.client, [mailbox], self.lease.owner, answer).get(mailbox.stream, [])
        self.memory.hold(found)
        return bool(found)

    # -- doubts -----------------------------------------------------------------------------------------------------

    def _is_doubtful(self) -> bool:
        if self.serving.doubtful:
            self.serving.flush()  # what failed is not run again
        return self.serving.doubtful or self.serving.box.torn

    def _make_again(self) -> bool:
        if not self.record.pinned:
            return self.memory.make()
        if self.serving.box.torn or self.serving.instance.node is None:
            raise self.memory.trouble(
                "a message was broken off or given up that may be in its state already, and a pinned node has no "
                "snapshot to go back to",
                "lost",
            )
        self.serving.doubtful = False  # it raised, and keeps what it did before that, as in the runner's own process
        return True

    def _leave(self) -> None:
        """Leave nothing behind that somebody would have to run again."""
        if not self._is_doubtful():  # else who comes next goes on from the snapshot before
            self.memory.save()
        self.serving.fence.say(self.client, self.lease.owner, "deaths", 0)
