"""The nodes that one activation serves: the one whose bell started it, and others of its run on the same queue.

A chain of nodes on one worker would otherwise wait for Celery at every link: an activation would have to end for the
next node's to begin. Nothing else changes: each node keeps its own mailbox, bell, order, timeout and figures.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from celerypipe.catalogue.catalogue import Listing
from celerypipe.errors import CodecError
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.record import Record
from celerypipe.redis.connection import Broken, Client, Command, accepted
from celerypipe.redis.script import together
from celerypipe.worker.activation.following import Following, private_to
from celerypipe.worker.activation.keeper import Keeper, Lease
from celerypipe.worker.activation.outbox import flush
from celerypipe.worker.activation.running import CHEAP
from celerypipe.worker.activation.serving import Serving
from celerypipe.worker.activation.shelf import Shelf

#: What sends the task of a bell: (mark, mailbox, slot, token).
Sending = Callable[[str, Mailbox, int, str], Command]

logger = logging.getLogger(__name__)


class Neighbours:
    """Takes and lets go of bells for one activation; ``servings`` is what it serves now, upstream nodes first.

    ``slots``: processes or threads of this worker. With one, all neighbours are taken: nobody else here could serve
    them. With more, and where ``parallel`` bounds the slots, only those that are warm in this process, and only while
    all are quick.
    """

    def __init__(
        self,
        client: Client,
        home: Serving,
        *,
        shelf: Shelf,
        keeper: Keeper,
        slots: int,
        listing_of: Callable[[str], Listing | None],
        sending: Sending,
    ) -> None:
        self.home = home
        self.servings = [home]
        #: Messages handled for nodes that are served no more, and how many of them failed.
        self.done = self.failed = 0
        self._client = client
        self._shelf = shelf
        self._keeper = keeper
        self._slots = slots
        self._listing_of = listing_of
        self._sending = sending
        self.following = Following(client, home)
        self._records: dict[str, Record] | None = None
        shelf.make_room(home.mailbox.run, len(home.record.neighbours))

    def adopt(self) -> None:
        """Take the bells of neighbours that nobody holds."""
        if len(self.servings) >= len(self.home.record.neighbours):
            return
        held = {serving.mailbox.node for serving in self.servings}
        free = [(self.home.mailbox.beside(name), record) for name, record in self._others().items() if name not in held]
        free = [(mailbox, record) for mailbox, record in free if self._suits(record)]
        if not free:
            return
        leases = [self.home.lease.beside(mailbox) for mailbox, _ in free]
        takes = [each.mailbox.taking(each.slot, each.owner) for each in leases]
        for lease, (_, record), answer in zip(leases, free, together(self._client, *takes), strict=True):
            listing = self._listing_of(record.mark)
            if answer == 1 and listing is not None:
                self._add(listing, lease, record)
        order = self.home.record.neighbours
        self.servings.sort(key=lambda serving: order.index(serving.mailbox.node))
        self._connect()

    def _connect(self) -> None:
        """Let each node know the one after it, as long as both are served here."""
        here = {serving.name: serving for serving in self.servings}
        for serving in self.servings:
            serving.next = here.get(serving.record.onward)

    def _others(self) -> dict[str, Record]:
        """The records of the neighbours whose marks this worker knows."""
        if self._records is None:
            home = self.home.mailbox
            names = [name for name in self.home.record.neighbours if name != home.node]
            found: Any = self._client.mget([self._client.names.node(home.run, name) for name in names])
            self._records = {}
            for name, data in zip(names, found, strict=True):
                try:
                    record = Record.read(home.beside(name).read_record(data)) if data is not None else None
                except CodecError:
                    continue  # its own activation says so
                if record is not None and self._may_serve(record):
                    self._records[name] = record
        return self._records

    def _may_serve(self, record: Record) -> bool:
        """A mark this worker knows; a node with a state has an activation of its own."""
        listing = self._listing_of(record.mark)
        return listing is not None and not listing.node.stateful

    def _suits(self, record: Record) -> bool:
        if record.parallel is not None and self.home.lease.slot >= record.parallel:
            return False
        if self._always(record):
            return True
        equal = self._equal(record)
        return _cheap(self.home.mean) and _cheap(equal.mean if equal is not None else self._shelf.mean(record))

    def _always(self, record: Record) -> bool:
        """Is it served however slow the others are? Nobody else here could; another worker gets a slot of its own."""
        return self._slots == 1 and record.parallel is None

    def _add(self, listing: Listing, lease: Lease, record: Record) -> None:
        self._keeper.add(lease)
        equal = self._equal(record)
        private = private_to(lease.mailbox.run, lease.mailbox.node)
        instance = equal.instance if equal is not None else self._shelf.lend(listing, record, private=private)
        self.servings.append(Serving(self._client, lease, record, instance))

    def _equal(self, record: Record) -> Serving | None:
        """One that is served with the same mark and configuration: it has an instance that serves both, in turn."""
        alike = (serving for serving in self.servings if serving.record.key == record.key)
        return next((serving for serving in alike if not serving.instance.private), None)

    def leave_unsuited(self) -> None:
        """Let go of neighbours whose bell was lost, or who better have a slot of their own."""
        if len(self.servings) == 1:
            return
        others = [serving for serving in self.servings if serving is not self.home]
        slow = any(serving.mean is not None and serving.mean > CHEAP for serving in self.servings)
        left = [
            each
            for each in others
            if each.lease.state != "held" or (slow and not each.gathering and not self._always(each.record))
        ]
        if not left:
            return
        held = [each for each in left if each.lease.state == "held"]
        flush(self._client, [each.outbox for each in held])
        self._hand_back(self._still_held(held))
        for serving in left:
            self._forget(serving)

    def release(self) -> bool:
        """Let go of all bells; False when entries wait that nobody was given: then some are still held."""
        others = [serving for serving in self.servings if serving is not self.home]
        held = self._still_held(others)
        for serving in others:
            if serving not in held:
                self._forget(serving)
        return not held and not self._still_held([self.home])

    def end(self, reason: str, *, waits: bool = False) -> None:
        """Let go of all, and ring again at the end of the queue where there is more to do.

        ``waits``: there is, since messages were given to this activation that the next one shall run.
        """
        if reason in ("over", "lost", "trouble"):
            self._still_held(self.servings, force=True)
            return
        left = list(self.servings) if waits else self._still_held(self.servings)
        if self._slots > 1:
            self._hand_back(left)
            return
        while left and not self._hand_back([left.pop(0)]):
            pass
        self._still_held(left, force=True)  # whoever answers the bell that was rung takes these too

    def close(self) -> None:
        """Put all instances back."""
        for serving in list(self.servings):
            self._forget(serving)

    def _hand_back(self, servings: Sequence[Serving]) -> int:
        """Ring bells again at the end of the queue; return how many were rung: those that were not lost."""
        tokens = [secrets.token_hex(4) for _ in servings]
        asked = []
        for serving, token in zip(servings, tokens, strict=True):
            self._keeper.remove(serving.lease)
            asked.append(serving.mailbox.handing_back(serving.lease.slot, serving.lease.owner, token))
        tasks = [
            self._sending(serving.record.mark, serving.mailbox, serving.lease.slot, token)
            for serving, token, answer in zip(servings, tokens, self._answers(asked), strict=True)
            if answer
        ]
        try:
            accepted(self._client.together(*tasks) if tasks else [])
        except Broken as error:  # the bell lapses unanswered, and the runner rings
            logger.warning("cannot send the next task: %s", error)
        return len(tasks)

    def _still_held(self, servings: Sequence[Serving], *, force: bool = False) -> list[Serving]:
        """Let go of bells; return those still held, since an entry waits that nobody was given: none with ``force``."""
        asked = []
        for serving in servings:
            self._keeper.remove(serving.lease)  # it would take the bell again
            asked.append(serving.mailbox.releasing(serving.lease.slot, serving.lease.owner, force=force))
        answers = self._answers(asked)
        held = [serving for serving, answer in zip(servings, answers, strict=True) if answer == 1]
        for serving in held:
            self._keeper.add(serving.lease)
        return held

    def _answers(self, asked: Sequence[Command]) -> list[Any]:
        return accepted(together(self._client, *asked)) if asked else []

    def _forget(self, serving: Serving) -> None:
        self.servings.remove(serving)
        self._connect()
        self.done += serving.done
        self.failed += serving.failed
        self._keeper.remove(serving.lease)
        if any(other.instance is serving.instance for other in self.servings):
            return
        if serving.record.pinned:
            with serving.lease.alarm.switch.patient():
                serving.instance.destroy()  # without restore() it cannot begin anew
        else:
            self._shelf.give_back(serving.record, serving.instance)


def _cheap(mean: float | None) -> bool:
    return mean is not None and mean <= CHEAP
