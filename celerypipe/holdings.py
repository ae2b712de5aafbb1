"""What a run holds in Redis: its lease, its reply stream, a mailbox and a record for each warped node.

They are made at its start and whenever one is missing, renewed while it goes on, and removed at its end; when their
runner dies they go away by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from celerypipe import blob, keys
from celerypipe.connection import Client
from celerypipe.mailbox import Mailbox

#: Seconds between two renewals of the blobs in flight.
RENEW = keys.DATA_TTL / 4000


class Holdings:
    """The keys of one run; ``mailboxes`` by node. It keeps no connection."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.mailboxes: dict[str, Mailbox] = {}
        self._records: dict[str, bytes] = {}
        self._made = False
        self._renewed = 0.0

    def plan(self, records: Mapping[str, bytes]) -> None:
        """Say which warped nodes there are, with the record that tells an activation about each."""
        self._records.update(records)
        self.mailboxes.update((name, Mailbox(self.run, name)) for name in records)

    def make(self, client: Client) -> None:
        """Make every key of the run that is missing; harmless where they exist."""
        self._made = True
        client.set(keys.run(self.run), "running", px=keys.RUN_TTL)
        if not client.exists(keys.reply(self.run)):
            # A stream cannot be empty and new at once: an entry that is deleted again leaves an empty one behind.
            entry: Any = client.xadd(keys.reply(self.run), {"n": ""})
            client.xdel(keys.reply(self.run), entry)
        client.pexpire(keys.reply(self.run), keys.DATA_TTL)
        for name, mailbox in self.mailboxes.items():
            client.set(keys.node(self.run, name), self._records[name], px=keys.DATA_TTL)
            mailbox.make(client)

    def renew(self, client: Client, blobs: Iterable[str]) -> tuple[bytes | None, bool]:
        """Let all of it live on; return what the lease said before (None: it was gone) and whether all was there."""
        together = client.pipeline(transaction=False)
        together.set(keys.run(self.run), "running", px=keys.RUN_TTL, get=True)
        names = [keys.reply(self.run)]
        for name, mailbox in self.mailboxes.items():
            names += (mailbox.stream, keys.node(self.run, name))
        for name in names:
            together.pexpire(name, keys.DATA_TTL)
        now = time.monotonic()
        if now - self._renewed > RENEW:
            self._renewed = now
            blob.renew(together, self.run, list(blobs))
        before, *there = together.execute()
        return before, before is not None and all(there[: len(names)])

    def remove(self, client: Client, state: str, *, slots: Mapping[str, int], blobs: Iterable[str]) -> None:
        """Say that the run is ``finished`` or ``cancelled`` and delete the rest; ``slots``: bells rung, by node."""
        if not self._made:
            return
        together = client.pipeline(transaction=False)
        together.set(keys.run(self.run), state, px=keys.RUN_TTL)
        together.unlink(keys.reply(self.run))
        blob.delete(together, self.run, list(blobs))
        for name, mailbox in self.mailboxes.items():
            bells = [f"{mailbox.bell}{slot}" for slot in range(slots[name])]
            together.unlink(mailbox.stream, keys.node(self.run, name), keys.attempts(self.run, name), *bells)
        together.execute()
