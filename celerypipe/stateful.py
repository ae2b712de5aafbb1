"""An activation of a stateful node: one at a time, messages in order, and a state that outlives its process.

It enters the fence, restores the snapshot, and runs again what came since; what that brings was published before.
Results leave at once. Their messages leave with the next snapshot, so that who comes next can do the same. Where it is
doubtful what an ``update`` did to the state (it raised, it was interrupted, its message was withdrawn), the activation
does this too: a message that failed leaves nothing in the state.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from celerypipe import codec
from celerypipe.blob import INLINE_LIMIT, Content, Store, is_shared, names, unpacked
from celerypipe.connection import Client, Command
from celerypipe.errors import CelerypipeError, CodecError, ConfigError
from celerypipe.fence import GIVEN_UP, RUNNER, Entered, Fence
from celerypipe.instance import Instance, Interrupted, brief, trace
from celerypipe.keeper import Lease
from celerypipe.mailbox import LOST_BLOB, Answer, Entry
from celerypipe.outbox import Outbox
from celerypipe.record import Record
from celerypipe.running import at_work, failure
from celerypipe.serving import Serving, open_entry
from celerypipe.shared_memory import SharedFolder

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
#: How often a message is run alone after its process died, before it is given up.
LONE_ATTEMPTS = 2
#: Messages that one read brings, and milliseconds that it waits for them.
READ = 64
IDLE_LOOK = 100


class Trouble(Exception):
    """Nobody can go on with this state. ``said`` is told to the runner, which ends the run."""

    def __init__(self, said: bytes) -> None:
        super().__init__("the state cannot be kept")
        self.said = said


class Missing(Exception):
    """Something of the last second is gone from Redis; the runner has it, and was asked to go back."""


class FencedOutbox(Outbox):
    """An outbox behind the fence. ``torn``: a message was withdrawn, and what came after it must not leave."""

    def __init__(self, fence: Fence, lease: Lease, record: Record) -> None:
        super().__init__(lease.mailbox, lease.owner, room=record.room, budget=record.budget)
        self.fence = fence
        self.lease = lease
        self.pinned = record.pinned
        self.torn = False

    def flush(self, client: Client) -> bool:
        with self.emptied() as pairs:
            if pairs and not self.torn and self.lease.state == "held":
                answers = [answer for answer, _ in pairs]
                said = self.fence.publish(client, self.owner, answers, ends=self.pinned)
                if said == -1:
                    self.lease.state = "lost"
                else:
                    self.sent(pairs, None if said is None else said[0])
                    self.torn = said is not None and said[1] < len(answers)
        return not self.refused


class StatefulServing(Serving):
    """Hands messages to a stateful node. ``doubtful``: nobody knows what the last one did to the state."""

    def __init__(self, client: Client, lease: Lease, record: Record, instance: Instance, fence: Fence) -> None:
        super().__init__(client, lease, record, instance)
        self.box = FencedOutbox(fence, lease, record)
        self.outbox = lease.outbox = self.box
        self.taking_over = True  # its messages may be run again: their memory is never used for others
        self.doubtful = False

    def let_go(self) -> None:
        self.doubtful = True
        super().let_go()

    def _fail(self, entry: Entry, said: bytes, waited: float, ran: float) -> None:
        self.doubtful = True
        super()._fail(entry, said, waited, ran)

    def again(self, entry: Entry, content: Content | None) -> None:
        """Run a message whose result is published: only what it does to the state is wanted."""
        message = open_entry(entry, unpacked(entry.blob, content))
        self.sign(f"{message.id} (again)")
        self.lease.current = entry.id
        try:
            self.call(self.instance.update, message, self.lease.at_work)
        finally:
            self.lease.current = ""
            at_work.set("")


class StatefulActivation:
    """Serves one stateful node; see :class:`celerypipe.activation.Activation` for what it is made with."""

    def __init__(
        self,
        client: Client,
        serving: StatefulServing,
        *,
        queues: Sequence[str],
        shutting_down: Callable[[], bool],
        offset: float,
    ) -> None:
        self.client = client
        self.serving = serving
        self.record = serving.record
        self.lease = serving.lease
        self.fence = serving.box.fence
        self.queues = queues
        self.shutting_down = shutting_down
        self.offset = offset
        run, shares = serving.mailbox.run, serving.record.shared
        self.store = Store(run, SharedFolder.find(run) if shares else None, shares)
        self.last = -1
        self._held: dict[int, Entry] = {}
        self._suspects: set[str] = set()
        self._unsaved: list[str] = []
        self._unsaved_bytes = 0
        self._saved_at = 0.0
        self._every = SNAPSHOT_EVERY
        self._slice = serving.record.slice

    @property
    def waits(self) -> bool:
        """Does it hold messages that it did not run?"""
        return bool(self._held)

    def serve(self) -> str:
        """Serve until there is a reason to stop; return the reason."""
        try:
            reason = self._drain()
            if self.lease.state == "held":
                self._leave()
        except Trouble as trouble:
            self.fence.say(self.client, self.lease.owner, "trouble", trouble.said)
            return "trouble"
        except Missing:
            return "lost"
        except Interrupted as interrupt:  # while it was run again
            return interrupt.reason
        return reason if self.lease.state == "held" else self.lease.state

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _drain(self) -> str:
        start = busy = looked = time.monotonic()
        claim_at = start + 1.0
        if not self._stand_up():
            return self._lost()
        while True:
            now = time.monotonic()
            if reason := self._must_stop(now - start):
                return reason
            if self._is_doubtful():
                if self.record.pinned:
                    raise self._trouble("a message was given up that may be in its state already", "lost")
                if not self._stand_up():
                    return self._lost()
                continue
            if now >= claim_at:
                claim_at = now + 1.0
                self._hold(self.serving.mailbox.claim(self.client, self.lease.owner, READ))
            if self._next() or self._receive():
                busy = time.monotonic()
            elif not self._held and self._may_leave(time.monotonic() - busy):
                return "idle"
            if self._is_due():
                self._save()
            if not self.record.pinned and time.monotonic() - looked > self._slice:
                looked = time.monotonic()
                if self._others_wait():
                    return "others wait"

    def _must_stop(self, age: float) -> str:
        if self.lease.state != "held":
            return self.lease.state
        if self.shutting_down():
            return "shutdown"
        return "term" if age > self.record.term and not self.record.pinned else ""

    def _may_leave(self, idle: float) -> bool:
        return not self.record.pinned and (idle > self.record.linger or self._others_wait())

    def _others_wait(self) -> bool:
        return any(self.client.together(*[("LLEN", queue) for queue in self.queues]))

    def _lost(self) -> str:
        if self.lease.state == "held":
            self.lease.state = "lost"
        return self.lease.state

    def _is_doubtful(self) -> bool:
        if self.serving.doubtful:
            self._flush()  # what failed is not run again
        return self.serving.doubtful or self.serving.box.torn

    def _next(self) -> bool:
        """Run the message whose turn it is, if it is here."""
        entry = self._held.pop(self.last + 1, None)
        if entry is None:
            return False
        if entry.attempt != GIVEN_UP and not self._run(entry):
            return True
        self._ran(entry)
        if self.serving.box.due:
            self._flush()
        return True

    def _run(self, entry: Entry) -> bool:
        """Run a message; False: it left nothing in the state, or nobody knows what."""
        content = self._content(entry)
        if entry.blob and content is None:
            self.serving.box.add(Answer(entry, LOST_BLOB, 0.0, 0.0, "", b""))  # and it will come again
            self._flush()
            return False
        if entry.id in self._suspects:
            self._flush()  # if the process dies now, it dies of this one
            if self._is_doubtful() or not self.serving.claimed(entry, LONE_ATTEMPTS):
                return False
        began = time.monotonic()
        self.serving.handle([(entry, content)], self.store, self.offset)
        if self.serving.doubtful:
            if self.record.pinned and self.lease.state == "held":
                self._flush()
                if self.serving.instance.node is None:
                    raise self._trouble("its update() was interrupted, which may have left its state half done", "lost")
                self.serving.doubtful = False  # as in the runner's own process: it keeps what it did before it raised
            return False
        self.serving.spent(time.monotonic() - began, 1)
        if entry.id in self._suspects:
            self._flush()
        return True

    def _ran(self, entry: Entry) -> None:
        self.last = entry.sequence
        if not self.record.pinned:
            self._unsaved.append(entry.id)
            self._unsaved_bytes += len(entry.data)
        elif entry.attempt == GIVEN_UP:
            self.fence.discard(self.client, self.lease.owner, [entry.id])

    def _receive(self) -> bool:
        """Publish what is done and wait a moment for more."""
        self.lease.alarm.unguard()
        self._flush()
        box = self.serving.box
        while box.full and not self._must_stop(0.0):
            time.sleep(0.01)
            box.look(self.client)
        if box.torn or self.lease.state != "held":
            return False
        try:
            found = self.serving.mailbox.receive(self.client, self.lease.owner, READ, IDLE_LOOK)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._lost()  # the mailbox is gone; its runner makes it anew and rings
            return False
        self._hold(found)
        return bool(found)

    def _hold(self, entries: Sequence[Entry]) -> None:
        """Keep what came until its turn; what is here already, or was withdrawn meanwhile, is let go."""
        twice = []
        for entry in entries:
            before = self._held.get(entry.sequence)
            if entry.sequence <= self.last:
                if self.record.pinned and entry.attempt != GIVEN_UP:
                    raise self._trouble("Redis lost a result that is in its state already, which cannot be made again")
                twice.append(entry.id)
            elif before is not None and before.attempt >= entry.attempt:
                twice.append(entry.id)
            else:
                if before is not None:
                    twice.append(before.id)
                self._held[entry.sequence] = entry
        if twice and not self.fence.discard(self.client, self.lease.owner, twice):
            self._lost()

    def _content(self, entry: Entry) -> Content | None:
        if not entry.blob:
            return None
        if self.store.folder is None and is_shared(entry.blob):
            self.store.folder = SharedFolder.find(self.store.run)
        return self.store.get(self.client, [entry.blob])[entry.blob]

    def _flush(self) -> None:
        self.lease.alarm.unguard()
        if self.serving.box.waiting and not self.serving.box.flush(self.client):
            self.lease.state = "over"

    # -- the state --------------------------------------------------------------------------------------------------

    def _stand_up(self) -> bool:
        """Enter, restore the snapshot and run again what came since. False: the state is another's by now."""
        box = self.serving.box
        with box.emptied() as pairs:
            pairs.clear()  # made with a state that must not be
        box.torn = self.serving.doubtful = False
        found = self.fence.enter(self.client, self.lease.slot, self.lease.owner)
        if found is None:
            return False
        if self.record.pinned and found.before not in (RUNNER, self.lease.owner):
            raise self._trouble(f"the process that kept its state is gone ({found.before})", "lost")
        if found.deaths > MOST_DEATHS:
            text = f"{found.deaths - 1} processes in a row died while they made its state out of its last snapshot"
            raise self._trouble(text, "lost")
        with self.serving.preparing():
            self._restore(found)
            self._unsaved, self._unsaved_bytes, self._held, self.last = [], 0, {}, found.last
            try:
                entries = self.fence.pending(self.client, self.lease.owner)
            except redis.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                return False
            self._suspects = {entry.id for entry in entries} if found.deaths > 1 else set()
            self._hold(entries)
            again = self._run_again(found.answered)
        self._saved_at = time.monotonic()
        if again:  # who comes next need not do all of it again
            self._save()
        return self.lease.state == "held"

    def _restore(self, found: Entered) -> None:
        data = found.data
        if found.blob:
            content = Store(self.store.run).get(self.client, [found.blob])[found.blob]
            if content is None:
                raise self._go_back()
            data = bytes(content)
        instance = self.serving.instance
        instance.name = self.serving.name
        try:
            fresh = instance.node is None
            node = instance.warm()
        except CelerypipeError as error:
            kind = "config" if isinstance(error, ConfigError) else "failed"
            raise Trouble(failure(kind, type(error).__name__, str(error), trace(error))) from None
        if self.record.pinned:
            return
        if fresh or instance.initial is None:
            instance.initial = self._snapshot()
        if data is not None or not fresh:
            try:
                state = codec.decode_value(data if data is not None else instance.initial)
            except CodecError as error:
                raise self._trouble(f"its snapshot cannot be read: {error}") from None
            self._ask("restore", node.restore, state)

    def _run_again(self, answered: int) -> bool:
        """Run again what was answered and is not in the snapshot; return whether there was any."""
        before = self.last
        while self.last < answered and self.lease.state == "held":
            entry = self._held.pop(self.last + 1, None)
            if entry is None:
                raise self._go_back()
            if entry.attempt != GIVEN_UP:
                self._run_once_more(entry)
            self._ran(entry)
        return self.last > before

    def _run_once_more(self, entry: Entry) -> None:
        content = self._content(entry)
        if entry.blob and content is None:
            raise self._go_back()
        try:
            self.serving.again(entry, content)
        except Interrupted as interrupt:
            self.serving.let_go()
            if interrupt.reason == "timeout":
                raise self._unlike(entry, f"{self.record.timeout} s exceeded") from None
            raise
        except Exception as error:  # noqa: BLE001  # whatever user code raises
            raise self._unlike(entry, brief(error), trace(error)) from None

    def _go_back(self) -> Missing:
        self.fence.say(self.client, self.lease.owner, "rewind", 1)
        return Missing()

    def _is_due(self) -> bool:
        if not self._unsaved:
            return False
        many = len(self._unsaved) >= SNAPSHOT_AFTER or self._unsaved_bytes > SNAPSHOT_SHARE * self.record.budget
        return many or time.monotonic() - self._saved_at > self._every

    def _leave(self) -> None:
        """Leave nothing behind that somebody would have to run again."""
        if self._is_doubtful():
            return  # who comes next enters, and goes on from the snapshot
        if not self.record.pinned:
            self._save()
        self._flush()
        self.fence.say(self.client, self.lease.owner, "deaths", 0)

    def _save(self) -> None:
        """Take a snapshot, and with it let go of the messages whose results are published."""
        self._flush()
        if not self._unsaved or self.serving.box.torn or self.lease.state != "held":
            return
        began = time.monotonic()
        data = self._snapshot()
        snapshot: tuple[str, Any, Sequence[Command]] = ("data", data, ())
        store = Store(self.store.run)
        if len(data) > INLINE_LIMIT:
            reference, storing = store.put([data])
            snapshot = ("blob", reference, storing)
        old = self.fence.save(self.client, self.lease.owner, self.last, snapshot, self._unsaved)
        if old is None:
            self._lost()
            return
        if chunks := names(store.run, old) if old else []:
            self.client.call("UNLINK", *chunks)
        self._unsaved, self._unsaved_bytes, self._suspects = [], 0, set()
        self._saved_at = time.monotonic()
        took = self._saved_at - began
        self._every = max(SNAPSHOT_EVERY, 10 * took, len(data) / SNAPSHOT_RATE)
        self._slice = max(self.record.slice, 10 * took)

    def _snapshot(self) -> bytes:
        node = self.serving.instance.warm()
        state = self._ask("snapshot", lambda _: node.snapshot(), None)
        try:
            return codec.encode_value(state)
        except CodecError as error:
            text = f"snapshot() returned what cannot travel: {error}; return plain values, arrays or payloads"
            raise self._trouble(text) from None

    def _ask(self, what: str, method: Callable[[Any], Any], given: Any) -> Any:
        try:
            return self.lease.alarm.call(self.record.timeout, method, given)
        except Interrupted as interrupt:
            self.serving.let_go()
            if interrupt.reason != "timeout":
                raise
            raise self._trouble(f"{what}() took longer than its timeout of {self.record.timeout} s") from None
        except Exception as error:  # noqa: BLE001  # whatever user code raises
            raise self._trouble(f"{what}() failed: {brief(error)}", "failed", trace(error)) from None

    def _trouble(self, text: str, kind: str = "failed", traceback: str = "") -> Trouble:
        logger.error("run %s node %s: %s", self.serving.mailbox.run, self.serving.name, text)
        return Trouble(failure(kind, "NodeFailed", text, traceback))

    def _unlike(self, entry: Entry, text: str, traceback: str = "") -> Trouble:
        return self._trouble(
            f"its state cannot be made again: message {entry.sequence + 1} went through before and fails now ({text}); "
            "update() must do the same when it is run again",
            "failed",
            traceback,
        )
