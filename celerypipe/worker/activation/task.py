"""The Celery task class of a node: what a bell starts on a worker."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import celery

from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.instance import Instance
from celerypipe.errors import BadSignature, CodecError
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.mailbox import Beginning, Mailbox
from celerypipe.mailbox.record import Record
from celerypipe.message.files import arriving
from celerypipe.redis import keys
from celerypipe.redis.connection import Broken, Client, Trouble
from celerypipe.redis.signing import refused_bell, signed_bell
from celerypipe.worker.activation.activation import READ_MOST, Activation
from celerypipe.worker.activation.fenced import StatefulServing
from celerypipe.worker.activation.keeper import Lease
from celerypipe.worker.activation.neighbours import Neighbours
from celerypipe.worker.activation.place import Worker
from celerypipe.worker.activation.serving import Serving
from celerypipe.worker.activation.stateful import StatefulActivation

logger = logging.getLogger(__name__)

#: What Celery's log calls the reasons for an end that would sound as if messages were lost, or something was wrong.
SAID = {"lost": "its mailbox or bell is gone", "over": "the run is over"}


def is_bell(arguments: Any) -> bool:
    """Are these the arguments of a bell: run, node, slot, token, and perhaps a signature?"""
    return isinstance(arguments, list | tuple) and len(arguments) in (4, 5) and type(arguments[2]) is int


class NodeTask(celery.Task):  # type: ignore[misc]  # celery ships no types
    """The task named after a mark. Its arguments are those of a bell: run, node, slot, token, and a signature."""

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

    def run(self, *bell: Any, **other: Any) -> str:
        """Answer a bell; anything else gets a sentence that says how to run a node."""
        if other or not is_bell(bell):
            return (
                f"{self.name} is a node of celerypipe, not a function: put it into a pipeline with "
                f'"mark": "{self.name}", "warped": true and start it with `celerypipe run`.'
            )
        run_id, name, slot, token, *signature = bell
        keyring = self.worker.keyring
        mailbox = Mailbox(str(run_id), str(name), keyring)
        if (signature or keyring) and (wrong := refused_bell(keyring, self.name, bell[:4], *signature)):
            if self.worker.refusals.add("task", wrong):
                logger.warning("refused a task: %s; what follows is counted, not said", wrong)
            client = self.worker.client()
            try:
                mailbox.unring(client, slot, str(token))
            except Broken:  # then it lapses by itself
                client.close()
            return "refused"
        return self._answer(mailbox, slot, str(token))

    def _answer(self, mailbox: Mailbox, slot: int, token: str) -> str:
        client = self.worker.client()
        arriving.set(self.worker.files)
        owner = str(Holder(self.worker.process(os.getpid()), token, slot))
        lease = Lease(mailbox, slot, owner, self.worker.alarm(), self.worker.queues, self.worker.shutting_down)
        keeper, through = self.worker.place().keeper, False
        try:
            self.worker.begin(client)
            # An activation that ends at once takes nothing along; one with a state reads when that is there.
            first = 0 if self.worker.shutting_down() or self.listing.node.stateful else 1
            try:
                beginning = mailbox.begin(client, slot, owner, most=READ_MOST, first=first)
            except Trouble:  # the server may have closed a connection that was idle
                client.close()
                beginning = mailbox.begin(client, slot, owner, most=READ_MOST, first=first)
            if beginning is None:
                said = "the bell is held by another activation"
            else:
                keeper.add(lease)
                said = self._serve(client, lease, beginning)
            through = True
            return said
        except Broken as error:
            # Never ring from here: a crash that rang itself would never end. The runner's watchdog rings.
            client.close()
            logger.warning("run %s node %s: activation broken off: %s", mailbox.run, mailbox.node, error)
            return f"broken off: {error}"
        finally:
            if through:
                keeper.remove(lease)
            else:
                keeper.take_back(lease)

    def _serve(self, client: Client, lease: Lease, beginning: Beginning) -> str:
        if beginning.record is None or not beginning.running:
            client.delete(lease.bell)
            return "the run is over"
        try:
            record = Record.read(lease.mailbox.read_record(beginning.record))
        except BadSignature:  # the runner misses it soon and writes it anew
            client.delete(keys.node(lease.mailbox.run, lease.mailbox.node), lease.bell)
            lease.mailbox.refuse(client, lease.owner, "record")
            return "refused"
        except CodecError as error:
            client.delete(lease.bell)
            logger.warning("run %s node %s: unreadable record: %s", lease.mailbox.run, lease.mailbox.node, error)
            return f"unreadable: {error}"
        if record.mark != self.name:  # the shelf would lend this instance to whoever asks for the other mark
            client.delete(lease.bell)
            where = f"run {lease.mailbox.run!r} node {lease.mailbox.node!r}"
            logger.warning("%s is refused: its bell names %s, its record %r", where, self.name, record.mark)
            return f"refused: a bell for {self.name}, and a record of another node"
        if self.listing.node.stateful and lease.slot:
            client.delete(lease.bell)
            return "a stateful node has one slot"
        return self._drain(client, lease, record, beginning)

    def _drain(self, client: Client, lease: Lease, record: Record, beginning: Beginning) -> str:
        start = time.monotonic()
        refused = self._refused()
        place = self.worker.place()
        instance = place.shelf.lend(record.key, lambda: Instance(self.listing, record.configuration))
        serving = (StatefulServing if self.listing.node.stateful else Serving)(client, lease, record, instance)
        neighbours = Neighbours(
            client,
            serving,
            shelf=place.shelf,
            keeper=place.keeper,
            slots=self.worker.slots,
            listing_of=self._listing_of,
            ring=self._ring,
        )
        try:
            activation: Activation | StatefulActivation = (
                StatefulActivation(client, serving, beginning, place.keeper)
                if isinstance(serving, StatefulServing)
                else Activation(client, neighbours, beginning, place.keeper)
            )
            with lease.alarm:
                while (reason := activation.serve()) == "idle" and not neighbours.release():
                    pass
                if reason != "idle":
                    neighbours.end(reason, waits=activation.waits)
        finally:
            neighbours.close()
        refused = self._refused() - refused
        more = f", {refused} refused" if refused else ""
        return f"{neighbours.done} messages in {time.monotonic() - start:.2f} s ({SAID.get(reason, reason)}){more}"

    def _refused(self) -> int:
        """How many messages this process has refused."""
        return self.worker.keyring.refusals.total if self.worker.keyring is not None else 0

    def _listing_of(self, mark: str) -> Listing | None:
        task = self.app.tasks.get(mark)
        return task.listing if isinstance(task, NodeTask) else None

    def _ring(self, mark: str, mailbox: Mailbox, slot: int, token: str) -> None:
        queue = self.request.delivery_info.get("routing_key") or self.worker.queues[0]
        bell = signed_bell(self.worker.keyring, mark, [mailbox.run, mailbox.node, slot, token])
        self.app.send_task(mark, bell, queue=queue, retry=False, ignore_result=True)
