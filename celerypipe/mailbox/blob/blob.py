"""Large bytes by reference: up to 64 KiB travel inside a stream entry, more becomes a blob of its own.

A blob lies in Redis (``<id>:<chunks>``; Redis ends at 512 MB a value) or, where runner and workers share a machine, in
its memory (``/<name>:<size>``). In Redis it may be packed, and says so: ``<id>:<chunks>:<label>``, see
:mod:`celerypipe.mailbox.blob.packing`. Where messages are signed a reference ends in a digest of what lies there:
``@<hex>``.
"""

from __future__ import annotations

import os
import re
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from celerypipe import codec
from celerypipe.codec import Apart, Content
from celerypipe.errors import CodecError
from celerypipe.mailbox.blob import packing
from celerypipe.mailbox.blob.shared_memory import SharedFolder, watch
from celerypipe.message.message import Message
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command
from celerypipe.redis.signing import DIGEST_SIGN, digest, is_digest_of

INLINE_LIMIT = 64 * 1024
CHUNK = 256 * 1024 * 1024
#: References to altered blobs that are remembered.
ALTERED_MOST = 1000
#: What refers to a blob in Redis. Anybody may write one there: it must not make us ask for a billion chunks.
_STORED = re.compile(r"(?P<id>[0-9a-f]{1,64}):(?P<chunks>[1-9][0-9]{0,3})(?::(?P<label>\w+:\w+))?", re.ASCII)


class Stowed(NamedTuple):
    """A message as it travels: bytes in its entry, the reference of its blob, and what is still to be asked for that.

    No bytes in the entry: all of them are in the blob.
    """

    data: bytes
    blob: str
    storing: list[Command]


@dataclass(slots=True)
class Store:
    """Where the blobs of one run lie. ``folder``: in shared memory, or None; ``shares``: new ones go there.

    ``signed``: a reference ends in a digest, and bytes that it does not belong to are as good as gone; ``altered``
    has the references of those.
    """

    run: str
    folder: SharedFolder | None = None
    shares: bool = False
    signed: bool = False
    altered: set[str] = field(default_factory=set)

    def put(self, segments: Sequence[Content], compression: str = "none") -> tuple[str, list[Command]]:
        """Store bytes; return the reference, and the commands that are still to be asked for it.

        The segments may change afterwards: they have been copied. ``compression``: how to pack what goes to Redis.
        """
        if reference := self.put_shared(segments):
            return reference, []
        label, content = packing.pack(compression, segments)
        blob_id = os.urandom(9).hex()
        view = memoryview(content)
        commands: list[Command] = [
            ("SET", _key(self.run, blob_id, number), [view[start : start + CHUNK]], "PX", keys.DATA_TTL)
            for number, start in enumerate(range(0, len(content), CHUNK))
        ]
        said = digest([content]) if self.signed else ""
        return f"{blob_id}:{len(commands)}{':' if label else ''}{label}{said}", commands

    def stow(self, message: Apart, compression: str) -> Stowed:
        """Decide what of a message travels in its entry; store the rest. The message may change afterwards."""
        if len(message.head) + message.size <= INLINE_LIMIT:
            return Stowed(message.joined(), "", [])
        apart = len(message.head) <= INLINE_LIMIT
        reference, commands = self.put(message.body if apart else [message.joined()], compression)
        return Stowed(message.head if apart else b"", reference, commands)

    def put_shared(self, segments: Sequence[Content]) -> str:
        """Store bytes in shared memory; empty if there is none, or no room in it."""
        reference = (self.folder.write(segments) or "") if self.shares and self.folder is not None else ""
        return reference + digest(segments) if reference and self.signed else reference

    def get(self, client: Client, references: Iterable[str]) -> dict[str, Content | None]:
        """Return the bytes behind references, in at most one round trip; None for what is gone.

        They may be packed: see :func:`unpacked`.
        """
        found: dict[str, Content | None] = {}
        chunks: dict[str, list[str]] = {}
        for reference in references:
            if is_shared(reference):
                found[reference] = self.folder.read(_place(reference)) if self.folder is not None else None
            else:
                chunks[reference] = names(self.run, reference)
        wanted = [name for each in chunks.values() for name in each]
        if chunks:
            pieces = iter(client.call("MGET", *wanted) if wanted else ())
            for reference, each in chunks.items():
                parts = [next(pieces) for _ in each]
                found[reference] = None if None in parts else parts[0] if len(parts) == 1 else b"".join(parts)
        if self.signed:
            self._refuse_altered(found)
        return found

    def _refuse_altered(self, found: dict[str, Content | None]) -> None:
        if len(self.altered) > ALTERED_MOST:
            self.altered.clear()
        for reference, content in found.items():
            if content is not None and not is_digest_of(reference[len(_place(reference)) :], content):
                found[reference] = None
                self.altered.add(reference)

    def deleting(self, garbage: Iterable[tuple[str, bool]]) -> list[Command]:
        """Remove blobs that nobody needs any more; return the commands that are still to be asked for it.

        Each comes with whether nobody maps it either, so that its memory may be written again.
        """
        gone: list[str] = []
        for reference, unmapped in garbage:
            if not is_shared(reference):
                gone += names(self.run, reference)
            elif self.folder is not None:
                (self.folder.recycle if unmapped else self.folder.delete)(_place(reference))
        return [("UNLINK", *gone)] if gone else []


class Blob:
    """A blob, for as long as anything in the runner refers to this object; then it is garbage.

    ``readers`` counts the messages that were sent with it and whose results have not said that nobody maps it.
    """

    __slots__ = ("__weakref__", "_garbage", "_maps", "readers", "reference")

    def __init__(self, reference: str, garbage: deque[tuple[str, bool]]) -> None:
        self.reference = reference
        self.readers = 0
        self._maps: list[Callable[[], object]] = []
        self._garbage = garbage

    def __del__(self) -> None:
        self._garbage.append((self.reference, not self.readers and all(mapped() is None for mapped in self._maps)))

    def mapped(self, content: Content) -> None:
        """Live on for as long as this content does: whoever has an array in it may keep that."""
        if isinstance(content, memoryview):  # what is called at its end does not matter: until then it refers to self
            self._maps.append(watch(content))
            weakref.finalize(content.obj, id, self).atexit = False


class Blobs:
    """The blobs that one run needs now, and the garbage: those it needs no more, and whether they may be recycled."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.garbage: deque[tuple[str, bool]] = deque()
        self._living: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()

    def hold(self, reference: str) -> Blob:
        """Return the one object that stands for a blob."""
        blob = self._living.get(reference)
        if blob is None:
            blob = self._living[reference] = Blob(reference, self.garbage)
        return blob

    def living(self) -> list[str]:
        """Return the references that something refers to."""
        return [blob.reference for found in self._living.valuerefs() if (blob := found()) is not None]

    def renewing(self) -> list[Command]:
        """Return the commands that let what lies in Redis live for another while."""
        alive = [reference for reference in self.living() if not is_shared(reference)]
        return [("PEXPIRE", name, keys.DATA_TTL) for each in alive for name in names(self.store.run, each)]

    def deleting(self) -> list[Command]:
        """Remove the garbage; return the commands that are still to be asked for it."""
        return self.store.deleting(self.garbage.popleft() for _ in range(len(self.garbage)))

    def deleting_all(self) -> list[Command]:
        """Remove everything; return the commands that are still to be asked for it."""
        commands = [*self.deleting(), *self.store.deleting((each, False) for each in self.living())]
        if self.store.folder is not None:
            self.store.folder.remove()
        return commands

    def sweep(self) -> None:
        """Remove from shared memory what workers wrote and died over, when it would be gone from Redis too."""
        if self.store.folder is not None:
            found = self.store.folder.leftovers(time.time() - keys.DATA_TTL / 1000)
            for reference in set(found).difference(map(_place, self.living())):
                self.store.folder.delete(reference)


def is_shared(reference: str) -> bool:
    """Does it lie in shared memory?"""
    return reference.startswith("/")


def names(run_id: str, reference: str) -> list[str]:
    """The keys behind a reference to Redis; none if it refers to nothing."""
    found = _STORED.fullmatch(_place(reference))
    return [_key(run_id, found["id"], number) for number in range(int(found["chunks"]))] if found else []


def unstowed(data: bytes, content: Content | None) -> list[Message]:
    """Return the messages in the bytes of an entry and the plain ones of its blob. Raises :class:`CodecError`."""
    return codec.decode(data, content) if data else codec.decode(content or b"")


def unpacked(reference: str, content: Content | None) -> Content | None:
    """Return the plain bytes of what lay behind a reference; None if it was gone. Raises :class:`CodecError`."""
    return content if content is None else packing.unpack(_label(reference), content)


def plain_size(reference: str, content: Content | None) -> int:
    """Return how many bytes come out of what lay behind a reference."""
    return 0 if content is None else packing.plain_size(_label(reference), content)


def _label(reference: str) -> str:
    if is_shared(reference):
        return ""
    found = _STORED.fullmatch(_place(reference))
    if found is None:
        raise CodecError(f"{reference[:100]!r} refers to no payload")
    return found["label"] or ""


def _place(reference: str) -> str:
    """A reference without its digest."""
    return reference.partition(DIGEST_SIGN)[0]


def _key(run_id: str, blob_id: str, number: int) -> str:
    name = keys.blob(run_id, blob_id)
    return name if number == 0 else f"{name}:{number}"
