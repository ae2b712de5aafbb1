"""The bytes of a run's messages: which travel in the mailbox, which lie apart and where, which are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from celerypipe import codec
from celerypipe.errors import CodecError
from celerypipe.mailbox.blob.blob import Blob, Blobs, Contents, Gone, is_shared
from celerypipe.mailbox.blob.shared_memory import SharedFolder
from celerypipe.mailbox.onward import Step
from celerypipe.mailbox.wire import Reply
from celerypipe.message.message import Message
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Client, connect
from celerypipe.runner.warp.flight import Flight
from celerypipe.runner.warp.warp import Warp


@dataclass(frozen=True, slots=True)
class Lineage:
    """The last ancestor whose bytes the runner has, the nodes that ran on it since, and which output of each."""

    ancestor: Message
    steps: tuple[tuple[Warp, int], ...]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Sealed:
    """Stands for the payload of a result. ``blob``: what of it lies apart; without ``data`` all of it does."""

    data: bytes
    blob: Blob | None = None


class Cargo:
    """Loads messages and unloads results of one run."""

    def __init__(self, address: Address, blobs: Blobs, say: Callable[[str], None], *, may_share: bool) -> None:
        self.address = address
        self.blobs = blobs
        self._say = say
        self._may_share = may_share

    def share(self, *, able: bool) -> None:
        """Put new blobs into shared memory if all workers can see it."""
        store = self.blobs.store
        able = able and self._may_share
        if able and store.folder is None:
            store.folder = SharedFolder.make(store.run)
            self._may_share = store.folder is not None
            able = store.folder is not None
        store.shares = able

    def load(self, warp: Warp, flight: Flight, message: codec.Apart) -> None:
        """Give a flight its bytes; they have been copied afterwards, or are stored already."""
        flight.size = flight.size or len(message.head) + message.size
        flight.storing, flight.blob = (), None
        if message.elsewhere is not None:
            flight.data, flight.blob = message.head, message.elsewhere.blob
            message.elsewhere.blob.readers += 1
            return
        flight.data, reference, flight.storing = self.blobs.store.stow(message, warp.limits.compression)
        if reference:
            flight.blob = self.blobs.hold(reference)
            flight.blob.readers += 1

    def fetch(self, client: Client, results: Iterable[tuple[Warp, Reply | Step]]) -> Contents:
        """Get the blobs of all results that somebody here reads, in one round trip."""
        wanted = [
            each.blob
            for warp, each in results
            if each.blob and not warp.keeps_sealed and not (each.data and warp.sends_references)
        ]
        return self.blobs.store.open(client, wanted)

    def unload(
        self,
        client: Client,
        warp: Warp,
        parent: Message,
        result: Reply | Step,
        fetched: Contents,
    ) -> list[Message]:
        """Return the messages of a result. Raises :class:`Gone`, :class:`CodecError`.

        Where nobody here reads them their payloads stay elsewhere, and those of calls stay sealed until somebody does.
        """
        reference, data = result.blob, result.data
        if warp.keeps_sealed:
            return [Message(Sealed(data, self.blobs.hold(reference) if reference else None))]
        if not reference:
            return codec.decode(data)
        blob = self.blobs.hold(reference)
        if reference not in fetched:
            outputs = codec.decode_head(data, blob, lambda number: lineage_of(warp, parent, number))
            if outputs is not None and (len(outputs) == 1 or is_shared(reference)):
                return outputs  # of several, each worker would read the body of all
            fetched = self.blobs.store.open(client, [reference])
        messages, content = fetched.read(data, reference)
        if content is not None:
            blob.mapped(content)
        return messages

    def here(self, message: Message) -> Message | None:
        """Return a message with its payload, wherever that is; None if it is lost."""
        payload = message.payload
        if not isinstance(payload, codec.Elsewhere):
            return message
        reference = payload.blob.reference
        try:
            with connect(self.address, name="celerypipe-fetch", timeout=2.0) as client:
                body = self.blobs.store.content(client, reference)
        except (*Broken, Gone, CodecError):  # what cannot be unpacked is as good as lost
            return None
        payload.blob.mapped(body)
        content = codec.decode_payload(payload, body)
        return message.with_changes(payload=content, id=message.id, created_at=message.created_at)

    def unseen(self, warp: Warp, flight: Flight) -> None:
        """A worker could not read the bytes of a message: if they are in shared memory, nothing more goes there."""
        if flight.blob is not None and is_shared(flight.blob.reference) and self._may_share:
            self._say(
                f"{warp.name}: a worker cannot see the shared memory of this machine; large payloads go through Redis"
            )
            self._may_share = False
            self.share(able=False)


def lineage_of(warp: Warp, message: Message, number: int) -> Lineage:
    """How the numbered output that a node made of a message came to be."""
    payload = message.payload
    if isinstance(payload, codec.Elsewhere):
        known: Lineage = payload.lineage
        return Lineage(known.ancestor, (*known.steps, (warp, number)))
    return Lineage(message, ((warp, number),))
