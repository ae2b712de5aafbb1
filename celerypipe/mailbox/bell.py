"""A bell on its way: the arguments of the Celery task that asks a worker to serve a node of a run; and its no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from celerypipe.mailbox import protocol
from celerypipe.mailbox.mailbox import Mailbox
from celerypipe.mailbox.protocol import Spoken, protocol_of
from celerypipe.mailbox.wire import DECLINED
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import SIGNATURE, Keyring, Signer, refused_bell, signed_bell

#: Characters of a sentence of another version that are shown.
_LONGEST = 2000


class Bell(NamedTuple):
    """Which slot of a node's mailbox is rung, and by which token; ``protocol``: what its run speaks."""

    run: str
    node: str
    slot: int = 0
    token: str = ""
    protocol: Spoken = Spoken()

    def __str__(self) -> str:
        """What Flower and logs show of it."""
        return f"(run={self.run!r}, node={self.node!r}, slot={self.slot})"

    def arguments(self, mark: str, keyring: Keyring | None) -> list[Any]:
        """Return the arguments of the task of that mark, signed if there are keys."""
        return signed_bell(keyring, mark, [list(protocol.SPOKEN), self.run, self.node, self.slot, self.token])


def bell_in(arguments: Sequence[Any]) -> Bell | None:
    """Return who rings, and by what as far as it is said in a way that is known here; None if this is no bell."""
    match arguments:
        case [said, str(run), str(node), *rest] if (spoken := protocol_of(said)) is not None:
            match rest:
                case [int(slot), str(token), *signature] if len(signature) <= 1 and protocol.SPOKEN.understands(spoken):
                    return Bell(run, node, slot, token, spoken)
            return Bell(run, node, protocol=spoken)
        case [str(run), str(node), int(), str(), *signature] if len(signature) <= 1:  # before there was a number
            return Bell(run, node)
    return None


def wrong_with(bell: Bell) -> str:
    """Return why it cannot be answered, as its run shall hear it, and the cure; nothing if it can."""
    ours = protocol.SPOKEN
    if ours.understands(bell.protocol):
        return "" if bell.token else f"its task does not have the arguments of {ours}: update celerypipe on both sides"
    older = "this run" if bell.protocol.number < ours.number else "the worker"
    return f"this run speaks {bell.protocol}, and the worker {ours}: update celerypipe where {older} is, and restart it"


def badly_signed(mark: str, keyring: Keyring | None, arguments: Sequence[Any]) -> str:
    """Return what is wrong with its signature, and the cure; nothing if nothing is."""
    signed, signature = arguments[:5], arguments[5:]
    return refused_bell(keyring, mark, signed, *signature) if signature or keyring else ""


class Declined(msgspec.Struct, frozen=True):
    """A worker cannot serve a node; ``worker``: its process, ``text``: why, with the cure."""

    node: str
    worker: str
    text: str


def decline(client: Client, mailbox: Mailbox, worker: str, text: str) -> None:
    """Tell a run that this worker cannot serve its node, whatever protocol the run speaks."""
    said = msgspec.json.encode(Declined(mailbox.node, worker, text))
    if mailbox.keyring is not None:
        said = _signer(mailbox.keyring, mailbox.run).sign(said)
    client.call("XADD", mailbox.reply, "NOMKSTREAM", "*", DECLINED, said)


def declined_in(said: bytes, run: str, keyring: Keyring | None) -> Declined | None:
    """Return what a worker said, whatever protocol it speaks; None if nobody of ours said it."""
    if keyring is not None and not _signer(keyring, run).verifies(said):
        return None
    try:
        found = msgspec.json.decode(said if keyring is None else said[:-SIGNATURE], type=Declined)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Declined(found.node, found.worker, found.text[:_LONGEST])


def _signer(keyring: Keyring, run: str) -> Signer:
    return keyring.signer("declined", run)
