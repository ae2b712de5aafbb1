"""The Celery task class of a node: what a bell starts on a worker."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import celery

from celerypipe.activation import READ_MOST, Activation
from celerypipe.catalogue import Entry
from celerypipe.connection import Broken, Client, Trouble, connect
from celerypipe.errors import CodecError
from celerypipe.fenced import StatefulServing
from celerypipe.instance import Alarm, Instance, Shelf, Unarmed
from celerypipe.keeper import Keeper, Lease
from celerypipe.mailbox import Beginning, Mailbox
from celerypipe.neighbours import Neighbours
from celerypipe.record import Record
from celerypipe.serving import Serving
from celerypipe.stateful import StatefulActivation

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Place:
    """What one worker process keeps between activations: warm instances, the keeper, a client per thread."""

    shelf: Shelf
    keeper: Keeper
    clients: threading.local = field(default_factory=threading.local)


@dataclass(slots=True)
class Worker:
    """What an activation knows of the worker it runs in; made once, before the pool starts."""

    redis_url: str
    queues: tuple[str, ...]
    host: str
    pool: str
    slots: int
    shutting_down: Callable[[], bool]
    _places: dict[int, Place] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def place(self) -> Place:
        """This process' own place; a forked child makes itself a new one."""
        pid = os.getpid()
        if pid not in self._places:
            with self._lock:  # two threads may come at once
                slots = self.slots if self.pool not in ("prefork", "solo") else 1
                keeper = Keeper(lambda: connect(self.redis_url, name="celerypipe-keeper"))
                self._places.setdefault(pid, Place(Shelf(slots), keeper))
        return self._places[pid]

    def client(self) -> Client:
        """This thread's own client."""
        clients = self.place().clients
        if not hasattr(clients, "client"):
            clients.client = connect(self.redis_url, name="celerypipe-activation")
        client: Client = clients.client
        return client

    def close(self) -> None:
        """Destroy this process' warm instances; called when the process ends."""
        self.place().shelf.close()


class NodeTask(celery.Task):  # type: ignore[misc]  # celery ships no types
    """The task named after a mark. Its arguments are those of a bell: run, node, slot, token."""

    abstract = False
    acks_late = False
    ignore_result = True
    typing = False

    def __init__(self, entry: Entry, worker: Worker) -> None:
        self.name = entry.mark
        self.entry = entry
        self.worker = worker
        self.__doc__ = entry.node.__doc__

    def run(self, *bell: Any, **other: Any) -> str:
        """Answer a bell; anything else gets a sentence that says how to run a node."""
        if other or len(bell) != 4 or not isinstance(bell[2], int):
            return (
                f"{self.name} is a node of celerypipe, not a function: put it into a pipeline with "
                f'"mark": "{self.name}", "warped": true and start it with `celerypipe run`.'
            )
        run_id, name, slot, token = bell
        return self._answer(Mailbox(str(run_id), str(name)), slot, str(token))

    def _answer(self, mailbox: Mailbox, slot: int, token: str) -> str:
        client = self.worker.client()
        owner = f"{self.worker.host}.{os.getpid()}.{token}-{secrets.token_hex(3)}.{slot}"
        try:
            # An activation that ends at once takes nothing along; one with a state reads when that is there.
            first = 0 if self.worker.shutting_down() or self.entry.node.stateful else 1
            try:
                beginning = mailbox.begin(client, slot, owner, most=READ_MOST, first=first)
            except Trouble:  # the server may have closed a connection that was idle
                client.close()
                beginning = mailbox.begin(client, slot, owner, most=READ_MOST, first=first)
            if beginning is None:
                return "the bell is held by another activation"
            alarm = Alarm() if threading.current_thread() is threading.main_thread() else Unarmed()
            lease = Lease(mailbox, slot, owner, alarm)
            keeper = self.worker.place().keeper
            keeper.add(lease)
            try:
                return self._serve(client, lease, beginning)
            finally:
                keeper.remove(lease)
        except Broken as error:
            # Never ring from here: a crash that rang itself would never end. The runner's watchdog rings.
            client.close()
            logger.warning("run %s node %s: activation broken off: %s", mailbox.run, mailbox.node, error)
            return f"broken off: {error}"

    def _serve(self, client: Client, lease: Lease, beginning: Beginning) -> str:
        if beginning.record is None or not beginning.running:
            client.delete(lease.bell)
            return "the run is over"
        try:
            record = Record.read(beginning.record)
        except (CodecError, TypeError) as error:
            client.delete(lease.bell)
            logger.warning("run %s node %s: unreadable record: %s", lease.mailbox.run, lease.mailbox.node, error)
            return f"unreadable: {error}"
        if self.entry.node.stateful and lease.slot:
            client.delete(lease.bell)
            return "a stateful node has one slot"
        if self.entry.node.stateful:
            return self._serve_stateful(client, lease, record, beginning)
        start = time.monotonic()
        place = self.worker.place()
        instance = place.shelf.lend(record.key, lambda: Instance(self.entry, record.configuration))
        neighbours = Neighbours(
            client,
            Serving(client, lease, record, instance),
            shelf=place.shelf,
            keeper=place.keeper,
            slots=self.worker.slots,
            entry_of=self._entry_of,
            ring=self._ring,
        )
        try:
            activation = Activation(
                client,
                neighbours,
                beginning=beginning,
                keeper=place.keeper,
                queues=self.worker.queues,
                shutting_down=self.worker.shutting_down,
            )
            with lease.alarm:
                while (reason := activation.serve()) == "idle" and not neighbours.release():
                    pass
                if reason != "idle":
                    neighbours.end(reason)
        finally:
            neighbours.close()
        return f"{activation.done} messages in {time.monotonic() - start:.2f} s ({reason})"

    def _serve_stateful(self, client: Client, lease: Lease, record: Record, beginning: Beginning) -> str:
        start = time.monotonic()
        place = self.worker.place()
        shelf, keeper = place.shelf, place.keeper
        mailbox, slot, owner = lease.mailbox, lease.slot, lease.owner
        instance = shelf.lend(record.key, lambda: Instance(self.entry, record.configuration))
        try:
            activation = StatefulActivation(
                client,
                StatefulServing(client, lease, record, instance),
                keeper=keeper,
                queues=self.worker.queues,
                shutting_down=self.worker.shutting_down,
                offset=beginning.now - time.time(),
            )
            with lease.alarm:
                while True:
                    reason = activation.serve()
                    keeper.remove(lease)  # it would take the bell again
                    force = reason in ("over", "lost", "trouble")
                    if not activation.waits and mailbox.release(client, slot, owner, force=force):
                        break
                    if force:
                        mailbox.release(client, slot, owner, force=True)
                        break
                    if reason != "idle":
                        token = secrets.token_hex(4)
                        if mailbox.hand_back(client, slot, owner, token):
                            self._ring(record.mark, mailbox, slot, token)
                        break
                    keeper.add(lease)
        finally:
            if record.pinned:
                instance.destroy()  # without restore() it cannot begin anew
            else:
                shelf.give_back(record.key, instance)
        return f"{activation.serving.done} messages in {time.monotonic() - start:.2f} s ({reason})"

    def _entry_of(self, mark: str) -> Entry | None:
        task = self.app.tasks.get(mark)
        return task.entry if isinstance(task, NodeTask) else None

    def _ring(self, mark: str, mailbox: Mailbox, slot: int, token: str) -> None:
        queue = self.request.delivery_info.get("routing_key") or self.worker.queues[0]
        self.app.send_task(mark, [mailbox.run, mailbox.node, slot, token], queue=queue, retry=False, ignore_result=True)
