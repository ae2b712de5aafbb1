"""The Celery task class of a node: what a bell starts on a worker."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import Any

import celery
from celery import signals

from celerypipe.catalogue.catalogue import Listing
from celerypipe.errors import BadSignature, CodecError
from celerypipe.mailbox.bell import Bell, badly_signed, bell_in, decline, wrong_with
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.mailbox import Beginning, Mailbox
from celerypipe.mailbox.record import Record
from celerypipe.message.files import Arrived, arriving
from celerypipe.process.log import at_work
from celerypipe.redis.connection import Broken, Client, Command, is_forbidden, said, tried_again
from celerypipe.worker.activation.activation import READ_MOST, Activation
from celerypipe.worker.activation.fenced import StatefulServing
from celerypipe.worker.activation.following import private_to
from celerypipe.worker.activation.keeper import Lease
from celerypipe.worker.activation.neighbours import Neighbours
from celerypipe.worker.activation.place import Worker
from celerypipe.worker.activation.serving import Serving
from celerypipe.worker.activation.stateful import StatefulActivation
from celerypipe.worker.logs import Interest, outlet

logger = logging.getLogger(__name__)

#: What Celery's log and Flower call the reasons for an end.
SAID = {
    "idle": "nothing left to do",
    "others wait": "other tasks wait",
    "term": "another task goes on",
    "recycle": "another process goes on",
    "lost": "another process goes on",
    "interrupted": "a message was interrupted",
    "shutdown": "the worker ends",
    "trouble": "its state cannot be used",
}


@signals.task_postrun.connect  # type: ignore[untyped-decorator]  # celery ships no types
def stop_work(**_: Any) -> None:
    """Called when Celery has said how a task ended: what this thread says from now on belongs to no run."""
    at_work.set(None)


class NodeTask(celery.Task):  # type: ignore[misc]  # celery ships no types
    """The task named after a mark. Its arguments are those of a bell."""

    abstract = False
    acks_late = False
    ignore_result = True
    typing = False
    Request = "celerypipe.celery.request:CheckedRequest"

    def __init__(self, listing: Listing, worker: Worker) -> None:
        self.name = listing.mark
        self.listing = listing
        self.worker = worker
        self.__doc__ = listing.node.__doc__

    def run(self, *arguments: Any, **other: Any) -> str:
        """Answer a bell; anything else gets a sentence that says how to run a node."""
        bell = None if other else bell_in(arguments)
        if bell is None:
            return (
                f"{self.name} is a node of celerypipe, not a function: put it into a pipeline with "
                f'"mark": "{self.name}", "warped": true and start it with `celerypipe run`.'
            )
        at_work.set((bell.run, bell.node, ""))
        keyring = self.worker.keyring
        mailbox = Mailbox(bell.run, bell.node, keyring, self.worker.names)
        if wrong := wrong_with(bell):
            return self._decline(self.worker.client(), mailbox, wrong)
        if wrong := badly_signed(self.name, keyring, arguments):
            if self.worker.refusals.add("task", wrong):
                logger.warning("refused a task: %s; further ones are counted, not logged", wrong)
            client = self.worker.client()
            try:
                mailbox.unring(client, bell.slot, bell.token)
            except Broken:  # then it lapses by itself
                client.close()
            return "refused"
        return self._answer(mailbox, bell.slot, bell.token)

    def _decline(self, client: Client, mailbox: Mailbox, why: str) -> str:
        """Say no, here and to the run: it must not wait in silence."""
        logger.warning("declined: %s", why)
        try:
            decline(client, mailbox, str(self.worker.process(os.getpid())), why)
        except Broken:  # it rings again, and hears of it then
            client.close()
        return f"declined: {why}"

    def _answer(self, mailbox: Mailbox, slot: int, token: str) -> str:
        client = self.worker.client()
        arriving.set(lambda _: Arrived(self.worker.files))
        owner = str(Holder(self.worker.process(os.getpid()), token, slot))
        worker, place, through = self.worker, self.worker.place(), False
        lease = Lease(mailbox, slot, owner, worker.alarm(), worker.queues, worker.shutting_down, place.quota)
        try:
            self.worker.begin(client)
            # An activation that ends at once takes nothing along; one with a state reads when that is there.
            first = 0 if self.worker.shutting_down() or self.listing.node.stateful else 1
            beginning = tried_again(client, lambda: mailbox.begin(client, slot, owner, most=READ_MOST, first=first))
            if beginning is None:
                reason = "another task is at work on this already, or comes for it"
            else:
                place.keeper.add(lease)
                reason = self._serve(client, lease, beginning)
            through = True
            return reason
        except Broken as error:
            # Never ring from here: a crash that rang itself would never end. The runner's watchdog rings.
            client.close()
            if is_forbidden(error):  # the next one would be broken off too, and the one after that
                return self._decline(client, mailbox, said(error))
            logger.warning("broken off: %s", error)
            return f"broken off: {error}"
        finally:
            if through:
                place.keeper.remove(lease)
            else:
                place.keeper.take_back(lease)
            if lease.alarm.interrupted:
                worker.after_interrupt(client)
            elif place.quota is not None and place.quota.used_up:
                worker.replace(client, place.quota.used_up)

    def _serve(self, client: Client, lease: Lease, beginning: Beginning) -> str:
        if beginning.record is None:  # also one that is of another type: the runner misses it then, and writes it anew
            client.delete(client.names.node(lease.mailbox.run, lease.mailbox.node))
        if beginning.record is None or not beginning.running:
            client.delete(lease.bell)
            return "the run is over"
        try:
            record = Record.read(lease.mailbox.read_record(beginning.record))
        except BadSignature:  # the runner misses it soon and writes it anew
            client.delete(client.names.node(lease.mailbox.run, lease.mailbox.node), lease.bell)
            lease.mailbox.refuse(client, lease.owner, "record")
            return "refused"
        except CodecError as error:
            # As above, if it was a stranger who wrote there.
            client.delete(client.names.node(lease.mailbox.run, lease.mailbox.node), lease.bell)
            why = f"what its run tells of the node cannot be read ({error}): install the same celerypipe on both sides"
            return self._decline(client, lease.mailbox, why)
        if record.mark != self.name:  # the shelf would lend this instance to whoever asks for the other mark
            client.delete(lease.bell)
            why = f"its task names {self.name}, and its run says {record.mark!r}: look who else writes to this Redis"
            return self._decline(client, lease.mailbox, why)
        if self.listing.node.stateful and lease.slot:
            client.delete(lease.bell)
            return "a stateful node has one slot"
        wanted = Interest(lease.mailbox.run, lease.mailbox.node, record.level, record.secrets)
        with outlet.wanted(wanted):
            return self._drain(client, lease, record, beginning)

    def _drain(self, client: Client, lease: Lease, record: Record, beginning: Beginning) -> str:
        start = time.monotonic()
        refused = self._refused()
        place = self.worker.place()
        private = private_to(lease.mailbox.run, lease.mailbox.node)
        instance = place.shelf.lend(self.listing, record, private=private)
        serving = (StatefulServing if self.listing.node.stateful else Serving)(client, lease, record, instance)
        lease.orders = max(lease.orders, beginning.orders)
        neighbours = Neighbours(
            client,
            serving,
            shelf=place.shelf,
            keeper=place.keeper,
            slots=self.worker.slots,
            listing_of=self._listing_of,
            sending=self._sending,
        )
        try:
            activation: Activation | StatefulActivation = (
                StatefulActivation(client, serving, beginning, place.keeper, neighbours.following)
                if isinstance(serving, StatefulServing)
                else Activation(client, neighbours, beginning, place.keeper)
            )
            with contextlib.closing(activation), lease.alarm:
                while (reason := activation.serve()) == "idle" and not neighbours.release():
                    pass
                if reason != "idle":
                    neighbours.end(reason, waits=activation.waits)
        finally:
            neighbours.close()
        place.shelf.let_go(place.shelf.look(client, lease.mailbox.run))
        refused = self._refused() - refused
        counts = [f"{neighbours.done} message{'s' * (neighbours.done != 1)}", f"{neighbours.failed} failed"]
        counts += [f"{refused} refused"] if refused else []
        return f"{', '.join(counts)}, {time.monotonic() - start:.2f} s; {_why(client, lease.mailbox, reason)}"

    def _refused(self) -> int:
        """How many messages this process has refused."""
        return self.worker.keyring.refusals.total if self.worker.keyring is not None else 0

    def _listing_of(self, mark: str) -> Listing | None:
        task = self.app.tasks.get(mark)
        return task.listing if isinstance(task, NodeTask) else None

    def _sending(self, mark: str, mailbox: Mailbox, slot: int, token: str) -> Command:
        """Return the command that sends a task for the bell that was handed back."""
        queue = self.request.delivery_info.get("routing_key") or self.worker.queues[0]
        bell = Bell(mailbox.run, mailbox.node, slot, token)
        arguments = bell.arguments(mark, self.worker.keyring)
        item = self.worker.items().item(mark, arguments, queue=queue, shown=str(bell))
        return ("LPUSH", mailbox.names.queue(queue), item)


def _why(client: Client, mailbox: Mailbox, reason: str) -> str:
    """Say why it ended. A run that ends takes its messages away, and is then either seen or missed."""
    if reason not in ("over", "lost"):
        return SAID.get(reason, reason)
    with contextlib.suppress(*Broken):
        state = client.call("GET", mailbox.names.run(mailbox.run))
        if state is None:
            return "the run is over"
        if state != b"running":
            return f"run {state.decode(errors='replace')}"
    return SAID["lost"]
