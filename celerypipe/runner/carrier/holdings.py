"""What a run holds in Redis: its lease, its reply stream, a mailbox and a record for each warped node.

They are made at its start and whenever one is missing, renewed while it goes on, and removed at its end; when their
runner dies they go away by themselves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import redis

from celerypipe.mailbox.blob.blob import Blobs
from celerypipe.mailbox.fence import Fence
from celerypipe.mailbox.mailbox import Mailbox, made, prolonging
from celerypipe.mailbox.orders import Order, telling
from celerypipe.mailbox.record import Record
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.redis.script import call
from celerypipe.redis.signing import Keyring
from celerypipe.runner.warp.flight import Flight

#: Seconds between two renewals of the blobs in flight.
RENEW = keys.DATA_TTL / 4000


class Holdings:
    """The keys of one run; ``mailboxes`` by node. It keeps no connection."""

    def __init__(self, run: str, blobs: Blobs, keyring: Keyring | None = None) -> None:
        self.run = run
        self.blobs = blobs
        self.names = blobs.store.names
        self.keyring = keyring
        #: Who signs the results of a node, if anybody does.
        self.signer_of = None if keyring is None else lambda node: keyring.signer("result", run, node)
        self.mailboxes: dict[str, Mailbox] = {}
        #: The stateful nodes; their states are made by others, who know what is in them.
        self.states: set[str] = set()
        self._records: dict[str, Record] = {}
        self._orders: list[Order] = []
        self._about: dict[str, Any] = {}
        self._made = self._told = False
        self._renewed = 0.0

    def plan(self, records: Mapping[str, Record], about: Mapping[str, Any]) -> None:
        """Say which warped nodes there are, with the record that tells an activation about each.

        ``about``: what is told of the run to who asks what goes on here; JSON values.
        """
        self._records.update(records)
        self._about.update(about)
        self.mailboxes.update((name, Mailbox(self.run, name, self.keyring, self.names)) for name in records)

    def make(self, client: Client) -> None:
        """Make every key of the run that is missing; harmless where they exist."""
        self._made = True
        self.clear(client)
        call(client, prolonging(self.names, self.run))
        if "started" not in self._about:
            self._about["started"] = client.now()
        client.set(self.names.about(self.run), json.dumps(self._about), px=keys.DATA_TTL)
        if not client.exists(self.names.reply(self.run)):
            # A stream cannot be empty and new at once: an entry that is deleted again leaves an empty one behind.
            making = ("XADD", self.names.reply(self.run), "*", "n", "")
            entry, _ = accepted(client.together(making, ("PEXPIRE", self.names.reply(self.run), keys.DATA_TTL)))
            client.xdel(self.names.reply(self.run), entry)
        made(client.together(*(command for mailbox in self.mailboxes.values() for command in mailbox.making())))
        self.write_records(client)
        if self._orders and not client.exists(self.names.orders(self.run)):
            accepted(client.together(*telling(self.names, self.run, self._orders, self.keyring)))

    def order(self, client: Client, order: Order) -> None:
        """Tell activations what to do, those too that begin later."""
        self._orders.append(order)
        try:
            accepted(client.together(*telling(self.names, self.run, [order], self.keyring)))
        except redis.ResponseError:
            self.clear(client)
            accepted(client.together(*telling(self.names, self.run, self._orders, self.keyring)))

    def clear(self, client: Client) -> None:
        """Remove what somebody put in the place of a key: of another type, it is refused for ever whatever is done."""
        kinds = {self.names.run(self.run): b"string", self.names.reply(self.run): b"stream"}
        for name, mailbox in dict(self.mailboxes).items():  # a function that is called for the first time has one more
            kinds |= {mailbox.stream: b"stream", self.names.attempts(self.run, name): b"hash"}
        kinds |= {self.names.state(self.run, name): b"hash" for name in list(self.states)}
        kinds |= {self.names.log(self.run): b"stream", self.names.asked(self.run): b"stream"}
        kinds[self.names.orders(self.run)] = b"list"
        types = accepted(client.together(*[("TYPE", name) for name in kinds]))
        if wrong := [name for name, there in zip(kinds, types, strict=True) if there not in (kinds[name], b"none")]:
            client.call("UNLINK", *wrong)

    def write_records(self, client: Client) -> None:
        """Write what activations are told; whether memory is shared may change while the run goes on."""
        self._told = shared = self.blobs.store.shares
        records = {name: replace(record, shared=shared).write() for name, record in self._records.items()}
        accepted(client.together(*(self.mailboxes[name].writing_record(each) for name, each in records.items())))

    def renewing(self) -> Command:
        """Return the command that lets all of it live on; it answers as :func:`prolonging` does."""
        mailboxes = dict(self.mailboxes)  # a function that is called for the first time has one more
        names = [self.names.reply(self.run), self.names.about(self.run)]
        for name, mailbox in mailboxes.items():
            names += (mailbox.stream, self.names.node(self.run, name))
        names += [self.names.state(self.run, name) for name in list(self.states)]
        more = [self.names.attempts(self.run, name) for name in mailboxes]
        if self._orders:
            more.append(self.names.orders(self.run))
        return prolonging(self.names, self.run, names, more)

    def renewing_blobs(self) -> list[Command]:
        """Return the commands that let the blobs in flight live on, now and then."""
        now = time.monotonic()
        if now - self._renewed <= RENEW:
            return []
        self._renewed = now
        self.blobs.sweep()
        return self.blobs.renewing()

    @property
    def is_told(self) -> bool:
        """Do activations know whether memory is shared?"""
        return self._told == self.blobs.store.shares

    def remove(self, client: Client, state: str, *, slots: Mapping[str, int]) -> None:
        """Say that the run is ``finished``, ``failed`` or ``cancelled``, delete the rest; ``slots``: bells, by node."""
        commands = self.blobs.deleting_all()
        if not self._made:
            return
        commands += [
            ("SET", self.names.run(self.run), state, "PX", keys.RUN_TTL),
            ("UNLINK", self.names.reply(self.run), self.names.orders(self.run), self.names.asked(self.run)),
        ]
        commands.append(("PEXPIRE", self.names.about(self.run), keys.RUN_TTL))
        for name, mailbox in self.mailboxes.items():
            bells = [f"{mailbox.bell}{slot}" for slot in range(slots[name])]
            commands.append(
                ("UNLINK", mailbox.stream, self.names.node(self.run, name), self.names.attempts(self.run, name), *bells)
            )
        accepted(client.together(*commands))


def take_back(client: Client, mailbox: Mailbox, flights: Sequence[Flight], *, stateful: bool) -> list[Flight]:
    """Take messages back, so that nobody starts them; return them without those that have their answer already."""
    if stateful:
        fence = Fence(mailbox)
        return [flight for flight in flights if fence.withdraw(client, flight.entry, flight.sequence)]
    entries = [b"" if flight.remaking else flight.entry for flight in flights]  # it has none, or no more
    taken = mailbox.withdraw(client, [entry for entry in entries if entry])
    return [flight for flight, entry in zip(flights, entries, strict=True) if not entry or entry in taken]
