"""What a stateful node remembers, as its activation makes it and saves it.

The state of now is the last snapshot and the messages since, which are still in the mailbox; those are run again where
a process died, and wherever it is doubtful what an ``update`` did.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from celerypipe import codec
from celerypipe.catalogue.instance import brief, trace
from celerypipe.contract.contract import Node
from celerypipe.errors import BadSignature, CelerypipeError, CodecError, ConfigError
from celerypipe.mailbox.blob.blob import INLINE_LIMIT, Contents, Gone, Store
from celerypipe.mailbox.blob.shared_memory import SharedFolder
from celerypipe.mailbox.failure import failure
from celerypipe.mailbox.fence import GIVEN_UP, RUNNER, Entered, Snapshot, end_of, unlike
from celerypipe.mailbox.wire import Entry
from celerypipe.message.ownership import writable
from celerypipe.worker.activation.alarm import Interrupted
from celerypipe.worker.activation.fenced import StatefulServing

logger = logging.getLogger(__name__)

#: Seconds between two snapshots; longer where taking one takes more than a tenth of that, or is so large that more
#: than ``SNAPSHOT_RATE`` bytes a second would be written.
SNAPSHOT_EVERY = 1.0
SNAPSHOT_RATE = 16e6
#: Messages after which one is taken in any case, and the part of the run's byte budget that they may have.
SNAPSHOT_AFTER = 2000
SNAPSHOT_SHARE = 0.25
#: Activations in a row that may die without a snapshot between them.
MOST_DEATHS = 12


class StateUnusable(Exception):
    """Nobody can go on with this state. ``said`` is told to the runner, which ends the run."""

    def __init__(self, said: bytes) -> None:
        super().__init__("the state cannot be kept")
        self.said = said


class Missing(Exception):
    """Something of the last second is gone from Redis; the runner has it, and was asked to go back."""


class Memory:
    """``last``: the message that the state goes up to; ``held``: those after it that are here, by sequence number.

    ``every``: seconds between two snapshots; ``cost``: those that the last one took.
    """

    def __init__(self, serving: StatefulServing) -> None:
        self.serving = serving
        self.record = serving.record
        self.lease = serving.lease
        self.fence = serving.fence
        self.client = serving.client
        run, shares = serving.mailbox.run, serving.record.shared
        signed, names = serving.mailbox.keyring is not None, serving.mailbox.names
        folder = SharedFolder.find(run, keep_maps=self.lease.keeps_maps) if shares else None
        self.store = Store(run, folder, shares, signed, names)
        #: Where snapshots lie that are large: the runner keeps them alive.
        self._states = Store(run, signed=signed, names=names)
        self.last = -1
        self.held: dict[int, Entry] = {}
        #: Entries that a process had which died, the last one in ``dead``: one of them may have killed it.
        self.suspects: set[str] = set()
        self.dead = ""
        self.every = SNAPSHOT_EVERY
        self.cost = 0.0
        self._unsaved: list[str] = []
        self._unsaved_bytes = 0
        self._saved_at = 0.0

    # -- messages ---------------------------------------------------------------------------------------------------

    def hold(self, entries: Sequence[Entry]) -> None:
        """Keep what came until its turn; of two tries at one message the later counts."""
        twice = []
        for entry in entries:
            before = self.held.get(entry.sequence)
            if entry.sequence <= self.last:
                if self.record.pinned and entry.attempt != GIVEN_UP:
                    raise self.trouble("Redis lost a result that is in its state already, which cannot be made again")
                twice.append(entry.id)
            elif before is not None and before.attempt >= entry.attempt:
                twice.append(entry.id)
            else:
                if before is not None:
                    twice.append(before.id)
                self.held[entry.sequence] = entry
        if twice and not self.fence.discard(self.client, self.lease.owner, twice):
            self.lease.state = "lost"

    def regain(self) -> None:
        """The line to Redis broke: hold what was given along it, and did not arrive."""
        known = {*self._unsaved, *(entry.id for entry in self.held.values())}
        self.hold([entry for entry in self.fence.pending(self.client, self.lease.owner) if entry.id not in known])

    def contents(self, entry: Entry) -> Contents:
        """Get what an entry refers to."""
        if not entry.blob:
            return Contents({})
        contents = self.store.open(self.client, [entry.blob])
        self._unsaved_bytes += contents.found_size()
        return contents

    def ran(self, entry: Entry) -> None:
        """The state has this message too."""
        self.last = end_of(entry)
        if self.last > entry.sequence and self.held:
            held, self.held = [*self.held.values()], {}
            self.hold(held)
        if not self.record.pinned:
            self._unsaved.append(entry.id)
            self._unsaved_bytes += len(entry.data)
        elif entry.attempt == GIVEN_UP:
            self.fence.discard(self.client, self.lease.owner, [entry.id])

    # -- making it --------------------------------------------------------------------------------------------------

    def make(self) -> bool:
        """Enter, restore the snapshot and run again what came since. False: the state is another's by now."""
        self.serving.box.drop()
        self.serving.doubtful = False
        try:
            found = self.fence.enter(self.client, self.lease.slot, self.lease.owner)
        except BadSignature:  # or nobody of ours wrote it, without keys too
            self.serving.mailbox.refuse(self.client, self.lease.owner, "state")
            raise self._go_back() from None
        if found is None:
            return False
        if self.record.pinned and found.before not in (RUNNER, self.lease.owner):
            raise self.trouble(f"the process that kept its state is gone ({found.before})", "lost")
        if found.deaths > MOST_DEATHS:
            text = f"{found.deaths - 1} processes in a row died while they made its state out of its last snapshot"
            raise self.trouble(text, "lost")
        with self.serving.preparing():
            self._restore(found)
            self._unsaved, self._unsaved_bytes, self.held, self.last = [], 0, {}, found.last
            entries = self.fence.pending(self.client, self.lease.owner)
            if found.before not in (RUNNER, self.lease.owner):
                self.dead = found.before
            self.suspects = {entry.id for entry in entries} if found.deaths > 1 else set()
            if self.suspects:
                entries = [entry._replace(holder=self.dead) for entry in entries]
            self.hold(entries)
            self._run_again(found.answered)
        self._saved_at = time.monotonic()
        self.save()  # who comes next need not do all of it again
        return self.lease.state == "held"

    def _restore(self, found: Entered) -> None:
        instance = self.serving.instance
        instance.name = self.serving.name
        fresh = instance.node is None
        try:
            node = instance.warm()
        except CelerypipeError as error:
            kind = "config" if isinstance(error, ConfigError) else "failed"
            raise StateUnusable(failure(kind, type(error).__name__, str(error), trace(error))) from None
        if self.record.pinned:
            return
        if fresh or instance.initial is None:
            instance.initial = self._snapshot(node)
        try:
            data = bytes(self._states.content(self.client, found.blob)) if found.blob else found.data
            if data is None and fresh:
                return
            state = codec.decode_value(data if data is not None else instance.initial)
        except Gone as gone:
            raise self._lost(gone, "state") from None
        except (CodecError, ConfigError):  # nobody of ours wrote that; the runner has the right one
            raise self._go_back() from None
        self._ask("restore", node.restore, writable(state))

    def _run_again(self, answered: int) -> None:
        """Run again what was answered and is not in the snapshot."""
        while self.last < answered and self.lease.state == "held":
            entry = self.held.pop(self.last + 1, None)
            if entry is None:
                raise self._go_back()
            if entry.attempt != GIVEN_UP:
                self._run_once_more(entry)
            self.ran(entry)

    def _run_once_more(self, entry: Entry) -> None:
        contents = self.contents(entry)
        try:
            self.serving.again(entry, contents)
        except Gone as gone:
            raise self._lost(gone, "payload") from None
        except Interrupted as interrupt:
            self.serving.let_go()
            if interrupt.reason == "timeout":
                raise self._unlike(entry, f"{self.record.timeout} s exceeded") from None
            raise
        except Exception as error:  # noqa: BLE001  # whatever user code raises
            raise self._unlike(entry, brief(error), trace(error)) from None

    def _lost(self, gone: Gone, what: str) -> Missing:
        """Something that lies apart is gone, or nobody of ours wrote what is there."""
        if gone.altered:
            self.serving.mailbox.refuse(self.client, self.lease.owner, what)
        return self._go_back()

    def _go_back(self) -> Missing:
        self.fence.say(self.client, self.lease.owner, "rewind", 1)
        return Missing()

    # -- saving it --------------------------------------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Should a snapshot be taken now?"""
        if not self._unsaved:
            return False
        many = len(self._unsaved) >= SNAPSHOT_AFTER or self._unsaved_bytes > SNAPSHOT_SHARE * self.record.budget
        return many or time.monotonic() - self._saved_at > self.every

    def save(self) -> None:
        """Take a snapshot, and with it let go of the messages in it, whose results are published.

        Never of a state that is doubtful.
        """
        self.serving.flush()
        node = self.serving.instance.node
        doubtful = self.serving.doubtful or self.serving.box.torn
        if not self._unsaved or node is None or doubtful or self.lease.state != "held":
            return
        began = time.monotonic()
        data = self._snapshot(node)
        snapshot: Snapshot = ("data", data, ())
        if len(data) > INLINE_LIMIT:
            reference, storing = self._states.put([data])
            snapshot = ("blob", reference.encode(), storing)
        old = self.fence.save(self.client, self.lease.owner, self.last, snapshot, self._unsaved)
        garbage = old if old is not None else snapshot[1].decode() if snapshot[0] == "blob" else ""
        if chunks := self.store.keys_of(garbage):
            self.client.call("UNLINK", *chunks)
        if old is None:
            self.lease.state = "lost"
            return
        self._unsaved, self._unsaved_bytes = [], 0
        self._saved_at = time.monotonic()
        self.cost = self._saved_at - began
        self.every = max(SNAPSHOT_EVERY, 10 * self.cost, len(data) / SNAPSHOT_RATE)

    def _snapshot(self, node: Node) -> bytes:
        state = self._ask("snapshot", lambda _: node.snapshot(), None)
        try:
            return codec.encode_value(state)
        except CodecError as error:
            text = f"snapshot() returned what cannot travel: {error}; return plain values, arrays or payloads"
            raise self.trouble(text) from None

    def _ask(self, what: str, method: Callable[[Any], Any], given: Any) -> Any:
        if self.record.timeout is not None:
            self.lease.until = time.monotonic() + self.record.timeout  # a thread that hangs in it is stuck
        try:
            return self.lease.alarm.call(self.record.timeout, method, given)
        except Interrupted as interrupt:
            self.serving.let_go()
            if interrupt.reason != "timeout":
                raise
            raise self.trouble(f"{what}() took longer than its timeout of {self.record.timeout} s") from None
        except Exception as error:  # noqa: BLE001  # whatever user code raises
            raise self.trouble(f"{what}() failed: {brief(error)}", traceback=trace(error)) from None
        finally:
            self.lease.until = math.inf

    # -- what to say ------------------------------------------------------------------------------------------------

    def trouble(self, text: str, kind: str = "failed", traceback: str = "") -> StateUnusable:
        """Return what ends the run: nobody can go on with this state."""
        logger.error("run %s node %s: %s", self.serving.mailbox.run, self.serving.name, text)
        return StateUnusable(failure(kind, "NodeFailed", text, traceback))

    def _unlike(self, entry: Entry, text: str, traceback: str = "") -> StateUnusable:
        return self.trouble(unlike(entry.sequence, text), traceback=traceback)
