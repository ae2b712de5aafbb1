"""What a run orders while it goes on, done between two messages by an activation that serves one of its nodes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from celery.exceptions import WorkerShutdown, WorkerTerminate

from celerypipe.catalogue.instance import Instance, brief
from celerypipe.mailbox.orders import Order, answering, told
from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.worker.activation.serving import Serving

logger = logging.getLogger(__name__)

#: Seconds without a word of the keeper after which an activation asks itself.
STALE = 1.5


class Following:
    """Follows the orders of one run, as its keeper hears of them with its leases."""

    def __init__(self, client: Client, home: Serving) -> None:
        self._client = client
        self._mailbox = home.mailbox
        self._lease = home.lease
        self._orders: list[Order | None] = []

    def concerns(self, node: str) -> bool:
        """Was something ordered of this node?"""
        return any(order is not None and order.node == node for order in self._orders)

    def is_due(self) -> bool:
        """Is there an order that was not looked at?

        While a node held the interpreter lock the keeper heard nothing: then Redis is asked here.
        """
        if time.monotonic() - self._lease.heard > STALE:
            there: Any = self._client.together(("LLEN", self._client.names.orders(self._mailbox.run)))[0]
            known = there if isinstance(there, int) else 0  # somebody may have put something else there
            self._lease.orders, self._lease.heard = max(self._lease.orders, known), time.monotonic()
        return self._lease.orders > len(self._orders)

    def read(self) -> None:
        """Read what is new."""
        if self._lease.orders > len(self._orders):
            known = {order.id for order in self._orders if order is not None}
            before = len(self._orders)
            for order in told(self._client, self._mailbox.run, before, self._mailbox.keyring):
                is_new = order is not None and order.id not in known  # a copy is signed as well
                self._orders.append(order if is_new else None)
                known |= {order.id} if order is not None else set()
            if None in self._orders[before:]:
                self._mailbox.refuse(self._client, self._lease.owner, "order")
            self._lease.orders = len(self._orders)  # some may be gone with all that Redis held

    def obey(self, servings: Iterable[Serving]) -> None:
        """Do what is new for nodes that are served; say what came of it."""
        self.read()
        said: list[Command] = []
        every = list(servings)
        for serving in every:
            instance = serving.instance
            if not instance.private:
                instance.obeyed = 0
            new = [order for order in self._orders[instance.obeyed :] if order and order.node == serving.name]
            if new and any(other.instance is instance for other in every if other is not serving):
                instance = serving.instance = Instance(instance.listing, serving.record.configuration)  # of its own
            for order in new:
                error = self._do(serving, instance, order)
                said += answering(self._client.names, order.id, {self._lease.owner: error})
            if new:
                instance.private = private_to(self._mailbox.run, serving.name)
            instance.obeyed = len(self._orders)
        if said:
            accepted(self._client.together(*said))

    @staticmethod
    def _do(serving: Serving, instance: Instance, order: Order) -> str:
        """Do it; return why not, if that cannot be."""
        instance.name = serving.name
        try:
            match order.kind:
                case "set":
                    instance.change(order.property, order.value)
                case "restart":
                    if serving.record.pinned:
                        return "it is pinned: what it remembers would be lost; start the run again instead"
                    with serving.lease.alarm.switch.patient():
                        instance.destroy()
                    serving.doubtful = True  # one that remembers goes back to its snapshot
                case _:
                    instance.suspended = order.kind == "suspend"
        except (WorkerShutdown, WorkerTerminate):
            raise  # Celery's own, out of its signal handlers
        except BaseException as error:  # noqa: BLE001  # user code, sys.exit too; its run is told
            logger.warning("%s: %s", serving.name, brief(error))
            return brief(error)
        logger.info("%s: %s %s", serving.name, order.kind, order.property)
        return ""


def private_to(run: str, node: str) -> str:
    """Return what an instance is called that a run has changed."""
    return f" {run} {node}"
