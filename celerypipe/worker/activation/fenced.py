"""A stateful node as an activation serves it: results leave through the fence, and a doubt about its state is noted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celerypipe.catalogue.instance import Instance
from celerypipe.mailbox.blob.blob import Contents
from celerypipe.mailbox.fence import Fence
from celerypipe.mailbox.record import Record
from celerypipe.mailbox.wire import Entry, storing
from celerypipe.redis.connection import Client, Command, Trouble, accepted
from celerypipe.redis.script import together
from celerypipe.worker.activation.keeper import Lease
from celerypipe.worker.activation.outbox import Outbox, Pair
from celerypipe.worker.activation.serving import Serving


class FencedOutbox(Outbox):
    """An outbox behind the fence. ``torn``: a message was withdrawn, and what came after it must not leave."""

    def __init__(self, fence: Fence, lease: Lease, record: Record) -> None:
        super().__init__(lease.mailbox, lease.owner, room=record.room, budget=record.budget)
        self.fence = fence
        self.lease = lease
        self.pinned = record.pinned
        self.torn = False

    def publish(self, client: Client) -> None:
        """Publish all of them; where this activation was shut out, or a message withdrawn, they are dropped."""
        with self.emptied() as pairs:
            if self._may_leave(pairs):
                self._publish(client, pairs)

    def exchange(self, client: Client, command: Command) -> Any:
        """Publish all of them, and ask one thing more, in one round trip; return the answer to that.

        Where that breaks, they are published once more, on a new line, and the error is raised.
        """
        try:
            with self.emptied() as pairs:
                if self._may_leave(pairs):
                    return self._publish(client, pairs, command)
            return client.call(*command)
        except Trouble:
            client.close()
            self.publish(client)
            raise

    def _may_leave(self, pairs: Sequence[Pair]) -> bool:
        return bool(pairs) and not self.torn and self.lease.state == "held"

    def _publish(self, client: Client, pairs: Sequence[Pair], *more: Command) -> Any:
        answers = [answer for answer, _ in pairs]
        stores = storing(answers)
        publishing = self.fence.publishing(self.owner, answers, ends=self.pinned)
        found = accepted(together(client, *stores, publishing, *more))
        said = found[len(stores)]
        if said == -1:
            self.lease.state = "lost"
        else:
            self.sent(pairs, None if said is None else said[0])
            self.torn = said is not None and said[1] < len(answers)
        return found[-1]

    def drop(self) -> None:
        """Forget what is in it: it was made with a state that must not be."""
        with self.emptied() as pairs:
            pairs.clear()
        self.torn = False


class StatefulServing(Serving):
    """Hands messages to a stateful node."""

    def __init__(self, client: Client, lease: Lease, record: Record, instance: Instance) -> None:
        super().__init__(client, lease, record, instance)
        self.fence = Fence(lease.mailbox)
        self.box = FencedOutbox(self.fence, lease, record)
        self.outbox = lease.outbox = self.box
        self.taking_over = True  # its messages may be run again: their memory is never used for others

    def flush(self) -> None:
        """Publish what is done."""
        # Also if nothing is in it: the keeper may be about to publish what was, and a snapshot must not be quicker.
        if not self.box.flush(self.client):
            self.lease.state = "over"

    def again(self, entry: Entry, contents: Contents) -> None:
        """Run a message whose result is published: only what it does to the state is wanted."""
        (message,), _ = contents.read(entry.data, entry.blob)
        self.sign(f"{message.id} (again)")
        self.lease.current = entry.id
        try:
            self.call(self.instance.update, message, self.lease.at_work)
        finally:
            self.lease.current = ""
            self.sign()
