"""Orders to a node that runs here, done by its own thread between two messages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from celerypipe.catalogue.instance import Instance, brief
from celerypipe.mailbox.orders import Order


class Pending:
    """An order that waits for its node, and what came of it."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.error = ""
        self.done = threading.Event()


class Ordered:
    """The orders that wait for one node. ``restarted`` makes the node anew, and returns the new instance.

    ``changed`` wakes its thread, also while there are no messages.
    """

    def __init__(self, restarted: Callable[[Instance], Instance], changed: threading.Condition) -> None:
        self._restarted = restarted
        self._changed = changed
        self._waiting: deque[Pending] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, order: Order) -> Pending:
        """Have it done by who calls :meth:`obey` next."""
        pending = Pending(order)
        self._waiting.append(pending)
        with self._changed:
            self._changed.notify_all()
        return pending

    def obey(self, instance: Instance) -> Instance:
        """Do what waits; return the instance that goes on. What makes it impossible to go on is raised."""
        while self._waiting:
            pending = self._waiting.popleft()
            try:
                instance = self._do(instance, pending.order)
            except BaseException as error:  # user code, sys.exit too
                pending.error = brief(error)
                if instance.node is None:
                    raise
            finally:
                pending.done.set()
        return instance

    def _do(self, instance: Instance, order: Order) -> Instance:
        match order.kind:
            case "set":
                instance.change(order.property, order.value)
            case "restart":
                return self._restarted(instance)
            case _:
                instance.suspended = order.kind == "suspend"
        return instance
