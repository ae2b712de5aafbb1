"""What a carrier tells its run, or its session: what it sees while it keeps in touch with Redis."""

from __future__ import annotations

from collections.abc import Sequence

from celerypipe.mailbox.orders import Order
from celerypipe.mailbox.presence import Presence
from celerypipe.redis.connection import Client
from celerypipe.runner.warp.warp import Warp


class CarrierListener:
    """Is told what happens, by the post thread or by who opens the carrier; here it does nothing about it."""

    def workers_seen(self, client: Client, name: str, workers: Sequence[Presence]) -> None:
        """The carrier looked who serves the queue of the node of this name; ``client`` may be asked meanwhile."""

    def queue_abandoned(self, warp: Warp) -> None:
        """Nobody serves or answers on its queue, and ``on_no_worker`` is ``local``: it may get another carrier now."""

    def ordered(self, order: Order) -> None:
        """Somebody wants a node of this run changed, suspended or started anew."""

    def replay_requested(self, names: Sequence[str]) -> None:
        """Somebody wants these dead letters replayed in this run, which has a folder of them."""
