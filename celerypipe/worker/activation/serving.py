"""One warped node as an activation serves it: its bell, its warm instance, its results on their way out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from celery.exceptions import WorkerShutdown, WorkerTerminate

from celerypipe.catalogue.instance import Instance, Produced, brief, update_batch
from celerypipe.codec import Content
from celerypipe.mailbox import hints
from celerypipe.mailbox.blob.blob import Contents, Gone, Store
from celerypipe.mailbox.blob.inputs import with_inputs
from celerypipe.mailbox.blob.maps import watch
from celerypipe.mailbox.deaths import Death, as_text, count_death, death_of, deaths_so_far
from celerypipe.mailbox.failure import failure
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.record import Record
from celerypipe.mailbox.wire import ALTERED, ERRANDS, FAILURE, LOST_BLOB, RESULT, SUSPECT, UNBEGUN, Answer, Entry
from celerypipe.message.message import Message
from celerypipe.redis.connection import Client
from celerypipe.worker.activation.alarm import SHUTDOWN, Interrupted
from celerypipe.worker.activation.gathering import Gathering
from celerypipe.worker.activation.keeper import Lease
from celerypipe.worker.activation.outbox import Outbox
from celerypipe.worker.activation.relay import PATIENT, Relay, Unwanted
from celerypipe.worker.activation.running import Running
from celerypipe.worker.logs import outlet

logger = logging.getLogger(__name__)

#: How often a message is handed to ``update`` alone after its process died, before it is given up.
LONE_ATTEMPTS = 2


class Ready(NamedTuple):
    """An entry that can be run: with its message, the bytes of its blob, and the seconds that it waited."""

    entry: Entry
    message: Message
    content: Content | None
    waited: float


class Serving(Running):
    """A node that is served: hands messages to its instance and keeps the results until they are published."""

    def __init__(self, client: Client, lease: Lease, record: Record, instance: Instance) -> None:
        super().__init__(client, lease, record, instance)
        self.mailbox: Mailbox = lease.mailbox
        self.outbox = lease.outbox = Outbox(lease.mailbox, lease.owner, room=record.room, budget=record.budget)
        #: Seconds its messages spent in the nodes after it.
        self.beyond = 0.0
        self.gathering = Gathering(record.batch, record.wait)
        self._warned = False
        #: What it works on was taken over from an activation that may not know yet: its memory must not be reused.
        self.taking_over = False

    def claimed(self, entry: Entry) -> bool:
        """Count one more try at a message whose process died; False: it was given up instead.

        One that was only taken over counts for nothing: its process lives, and may have held no bell for a while. Nor
        does one whose worker was told to end.
        """
        if not entry.holder:
            return True
        death = death_of(self.client, entry.holder) or Death(None)
        if death.told:
            return True
        name = self._attempts
        tried = count_death(self.client, name, str(entry.sequence))
        died = deaths_so_far(self.client, name, str(entry.sequence), entry.holder, death)
        if tried <= LONE_ATTEMPTS:
            return True
        text = f"the process that ran it died {tried} times: {as_text(died)}"
        self.printed = b""
        self._fail(entry, failure("lost", "WorkerLost", text, worker=entry.holder), 0.0, 0.0)
        return False

    @property
    def _attempts(self) -> str:
        return self.mailbox.names.attempts(self.mailbox.run, self.mailbox.node)

    def handle(self, entries: Sequence[Entry], contents: Contents, store: Store, offset: float) -> list[Entry]:
        """Run what goes together; return what is to be run again by itself. ``offset``: Redis' clock less ours."""
        if len(entries) > 1:
            return self._handle_together(entries, contents, store, offset)
        self._handle_one(entries[0], contents, store, offset)
        return []

    def _handle_one(self, entry: Entry, contents: Contents, store: Store, offset: float) -> None:
        if entry.blob and (gone := contents.gone(entry.blob)):
            self.lost(entry, gone)
            return
        waited, start, before = _waited(entry, offset), time.perf_counter(), self.warmed
        self.lease.current, self.printed = entry.id, b""
        try:
            (message,), content = contents.read(entry.data, entry.blob)
            if self.record.configuration is None:
                message = with_inputs(message, self.client, store)
            self.sign(message.id)
            outputs = self.call(self.instance.update, message, self.lease.at_work)
            warmed = self.warmed - before
            ran = time.perf_counter() - start - warmed
            answer, size = self._answer(entry, outputs, content, store, (waited, ran))
            if warmed:
                answer = answer._replace(warmed=warmed)
        except Interrupted as interrupt:
            self.let_go()
            if interrupt.reason == "timeout":
                self._fail(entry, self.late(), waited, time.perf_counter() - start - (self.warmed - before))
            elif interrupt.reason == SHUTDOWN:
                self._hand_back(entry)
        except Gone as gone:
            self.lost(entry, gone)
        except (WorkerShutdown, WorkerTerminate):
            raise  # Celery's own, out of its signal handlers
        except BaseException as error:  # noqa: BLE001  # what user code raises, sys.exit too, fails this message
            self._fail(entry, self.failure(error), waited, time.perf_counter() - start - (self.warmed - before))
        else:
            if self._goes_on(answer):
                self._go_on(message, answer, size, content, store)
            else:
                self.outbox.add(answer, size)
        finally:
            self.lease.current = ""
            self.sign()
        self.done += 1

    def give_back(self, entries: Sequence[Entry]) -> None:
        """The runner gets what was not begun, and sends it to whoever comes next."""
        for entry in entries:
            if not self.taking_over:  # what a dead one left is run by itself, and counted: it is left to be claimed
                self.outbox.add(Answer(entry, UNBEGUN, 0.0, 0.0, "", SUSPECT if entry.alone else b""))

    def _hand_back(self, entry: Entry) -> None:
        """Its worker ends, which is the fault of no message: others begin it again."""
        if self.taking_over:  # it is claimed once more, which counts again
            count_death(self.client, self._attempts, str(entry.sequence), by=-1)
        self.give_back([entry])

    def lost(self, entry: Entry, gone: Gone) -> None:
        """The payload of a message, or of its inputs, is gone: it will come again."""
        if gone.altered:
            self.mailbox.refused("payload")
        self.outbox.add(Answer(entry, LOST_BLOB, 0.0, 0.0, "", ALTERED if gone.altered else b""))

    def _goes_on(self, answer: Answer) -> bool:
        """May what came out be handed to the next node here?

        Not what killed its process before, so that it is clear whose fault that is; not what is made again because it
        was lost; not where too little is left of this node's time for the runner to hear that another one works.
        """
        if self.next is None or self.taking_over or answer.entry.sequence >= ERRANDS:
            return False
        return self.record.timeout is None or self.record.timeout - answer.waited - answer.ran >= PATIENT

    def _go_on(self, message: Message, answer: Answer, size: int, content: Content | None, store: Store) -> None:
        relay = Relay(answer, content, store, self.lease.at_work)
        self.lease.note = relay.note
        try:
            answer = relay.run(self, message)
            self.outbox.add(answer, size + relay.size)
        except Unwanted as unwanted:
            if unwanted.reason == SHUTDOWN:
                self._hand_back(answer.entry)
            else:
                logger.info("message %s was dropped on its way: nobody waits for it", message.id)
        finally:
            self.lease.note = None
            self.beyond += relay.seconds

    def _handle_together(self, group: Sequence[Entry], contents: Contents, store: Store, offset: float) -> list[Entry]:
        ready: list[Ready] = []
        for entry in group:
            try:
                (message,), content = contents.read(entry.data, entry.blob)
                ready.append(Ready(entry, message, content, _waited(entry, offset)))
            except Exception:  # noqa: BLE001  # whatever is wrong with its bytes is wrong with this one only
                self._handle_one(entry, contents, store, offset)  # which says what is wrong with it
        if not ready:
            return []
        entries = [each.entry for each in ready]
        start, before = time.perf_counter(), self.warmed
        outcomes = self._outcomes(ready)
        if outcomes is None:
            return self._one_by_one(entries)
        # What is said is each one's share of the call, since it decides how many are read at a time and for how many
        # slots the runner rings; for the rest of it, each waited for the others.
        warmed = self.warmed - before
        ran = (time.perf_counter() - start - warmed) / len(entries)
        for (entry, _, content, before_it), outcome in zip(ready, outcomes, strict=True):
            waited = before_it + (len(entries) - 1) * ran
            if isinstance(outcome, Exception):
                self._fail(entry, self.failure(outcome), waited, ran)
                continue
            try:
                answer, size = self._answer(entry, outcome, content, store, (waited, ran))
                self.outbox.add(answer._replace(warmed=warmed) if warmed else answer, size)
                warmed = 0.0
            except Exception as error:  # noqa: BLE001  # a missing package too: the others have their results
                self._fail(entry, self.failure(error), waited, ran)
        self.done += len(entries)
        return []

    def _one_by_one(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return what is still wanted of a batch that brought nothing: each is run by itself, here or elsewhere."""
        ids = [entry.id for entry in entries]
        if self.record.timeout is not None:
            hints.say_anew(self.client, self.lease.owner, self.name, ids)
        there = self.mailbox.still(self.client, ids)
        alone = not self.lease.shutting_down()  # then none of them is to blame
        return [entry._replace(alone=alone) for entry in entries if entry.id in there]

    def _outcomes(self, ready: Sequence[Ready]) -> list[Produced] | None:
        """Run a batch. None: each is to be run by itself, for one of them made it fail, or was withdrawn meanwhile."""
        entries, messages = [each.entry for each in ready], [each.message for each in ready]
        # The keeper looks after one entry: a batch is interrupted when its first message is withdrawn. The result of
        # another one that is withdrawn meanwhile is refused when it is published.
        self.lease.current = entries[0].id
        others = f" and {len(entries) - 1} others" if len(entries) > 1 else ""
        self.sign(f"{messages[0].id}{others}")
        try:
            return self.call(lambda given: update_batch(self.instance, given), messages, self.lease.at_work)
        except Interrupted as interrupt:
            self.let_go()
            if interrupt.reason == "timeout":
                said = "%s s exceeded by a batch of %d, so each is run by itself"
                logger.warning(said, self.record.timeout, len(entries))
            return None
        except (WorkerShutdown, WorkerTerminate):
            raise  # Celery's own, out of its signal handlers
        except BaseException as error:  # noqa: BLE001  # nobody knows whose fault it is; who fails again says so
            level = logging.DEBUG if self._warned else logging.WARNING
            logger.log(level, "a batch of %d failed, so each is run by itself: %s", len(entries), brief(error))
            self._warned = True
            return None
        finally:
            self.lease.current = ""
            self.sign()

    def _answer(
        self,
        entry: Entry,
        outputs: list[Message],
        content: Content | None,
        store: Store,
        times: tuple[float, float],
    ) -> tuple[Answer, int]:
        """Encode a result; return it with its size."""
        kept: Callable[[], object] = bool  # its answer is not None: who knows
        if isinstance(content, memoryview) and not self.taking_over:
            kept = watch(content)
        (data, blob, storing), size = self.encoded(outputs, content if entry.data else None, entry.blob, store)
        printed = self._printed()
        logged = outlet.last(self.lease.mailbox.run)
        answer = Answer(entry, RESULT, *times, blob, data, storing, kept, console=printed, logged=logged)
        return answer, size + len(printed)

    def _fail(self, entry: Entry, said: bytes, waited: float, ran: float) -> None:
        self.doubtful = True
        self.failed += 1
        logged = outlet.last(self.lease.mailbox.run)
        self.outbox.add(Answer(entry, FAILURE, waited, ran, "", said, console=self._printed(), logged=logged))

    def _printed(self) -> bytes:
        """Take what was printed: nobody knows for which message of a batch, so that the first one has it."""
        printed, self.printed = self.printed, b""
        return printed


def _waited(entry: Entry, offset: float) -> float:
    """Return how many seconds a message has been here."""
    return max(0.0, time.time() + offset - int(entry.id.partition("-")[0]) / 1000)
