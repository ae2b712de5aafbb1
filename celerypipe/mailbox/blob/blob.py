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
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from celerypipe import codec
from celerypipe.codec import Apart, Content
from celerypipe.errors import CodecError
from celerypipe.mailbox.blob import packing
from celerypipe.mailbox.blob.maps import watch
from celerypipe.mailbox.blob.shared_memory import SharedFolder
from celerypipe.message.message import Message
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command
from celerypipe.redis.signing import DIGEST_SIGN, digest, is_digest_of

INLINE_LIMIT = 64 * 1024
CHUNK = 256 * 1024 * 1024
#: What refers to a blob in Redis. Anybody may write one there: it must not make us ask for a billion chunks.
_STORED = re.compile(r"(?P<id>[0-9a-f]{1,64}):(?P<chunks>[1-9][0-9]{0,3})(?::(?P<label>\w+:\w+))?", re.ASCII)


class Stowed(NamedTuple):
    """A message as it travels: bytes in its entry, the reference of its blob, and what is still to be asked for that.

    No bytes in the entry: all of them are in the blob.
    """

    data: bytes
    blob: str
    storing: list[Command]


class Gone(Exception):
    """What lay behind a reference is gone, or ``altered``: not what was signed, which is as good as gone."""

    def __init__(self, *, altered: bool) -> None:
        super().__init__("the bytes behind a reference are gone")
        self.altered = altered


class Contents:
    """What lay behind some references, as it was found: it may be packed, and is unpacked for whoever reads it."""

    __slots__ = ("_altered", "_found")

    def __init__(self, found: dict[str, Content | None], altered: Container[str] = ()) -> None:
        self._found = found
        self._altered = altered

    def __contains__(self, reference: str) -> bool:
        """Was it looked for?"""
        return reference in self._found

    def gone(self, reference: str) -> Gone | None:
        """Return what keeps this from being read, unless it is there."""
        return Gone(altered=reference in self._altered) if self._found.get(reference) is None else None

    def content(self, reference: str) -> Content:
        """Return the plain bytes behind a reference. Raises :class:`Gone`, :class:`CodecError`."""
        found = self._found.get(reference)
        if found is None:
            raise Gone(altered=reference in self._altered)
        return packing.unpack(_label(reference), found)

    def read(self, data: bytes, reference: str) -> tuple[list[Message], Content | None]:
        """Return the messages of an entry or a result, and the plain bytes of its blob, which their arrays lie in.

        Raises :class:`Gone`, :class:`CodecError`.
        """
        if not reference:
            return codec.decode(data), None
        content = self.content(reference)
        return messages_in(data, content), content

    def found_size(self) -> int:
        """Return how many bytes were found."""
        return sum(len(content) for content in self._found.values() if content is not None)

    def plain_size(self, reference: str) -> int:
        """Return how many bytes come out of what was found behind a reference."""
        found = self._found.get(reference)
        return 0 if found is None else packing.plain_size(_label(reference), found)

    def forget(self, reference: str) -> None:
        """Let go of what nobody reads any more."""
        self._found.pop(reference, None)


@dataclass(slots=True)
class Store:
    """Where the blobs of one run lie. ``folder``: in shared memory, or None; ``shares``: new ones go there.

    ``signed``: a reference ends in a digest of what lies there.
    """

    run: str
    folder: SharedFolder | None = None
    shares: bool = False
    signed: bool = False
    names: keys.Names = keys.USUAL

    def put(self, segments: Sequence[Content], compression: str = "none") -> tuple[str, list[Command]]:
        """Store bytes; return the reference, and the commands that are still to be asked for it.

        The segments may change afterwards: they have been copied. ``compression``: how to pack what goes to Redis.
        """
        if reference := self.put_shared(segments):
            return reference, []
        label, content = packing.pack(compression, segments)
        blob_id = os.urandom(9).hex()
        commands: list[Command] = [
            ("SET", self._key(blob_id, number), [memoryview(content)[start : start + CHUNK]], "PX", keys.DATA_TTL)
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

    def open(self, client: Client, references: Iterable[str]) -> Contents:
        """Get what lies behind references, in at most one round trip."""
        found: dict[str, Content | None] = {}
        chunks: dict[str, list[str]] = {}
        for reference in references:
            if is_shared(reference):
                found[reference] = self._shared(reference)
            else:
                chunks[reference] = self.keys_of(reference)
        wanted = [name for each in chunks.values() for name in each]
        if chunks:
            pieces = iter(client.call("MGET", *wanted) if wanted else ())
            for reference, each in chunks.items():
                parts = [next(pieces) for _ in each]
                found[reference] = None if None in parts else parts[0] if len(parts) == 1 else b"".join(parts)
        return Contents(found, _without_altered(found) if self.signed else ())

    def content(self, client: Client, reference: str) -> Content:
        """Return the plain bytes behind one reference. Raises :class:`Gone`, :class:`CodecError`."""
        return self.open(client, [reference]).content(reference)

    def keys_of(self, reference: str) -> list[str]:
        """Return the keys behind a reference to Redis; none if it refers to nothing."""
        found = _STORED.fullmatch(_place(reference))
        return [self._key(found["id"], number) for number in range(int(found["chunks"]))] if found else []

    def _key(self, blob_id: str, number: int) -> str:
        name = self.names.blob(self.run, blob_id)
        return name if number == 0 else f"{name}:{number}"

    def _shared(self, reference: str) -> Content | None:
        if self.folder is None:
            self.folder = SharedFolder.find(self.run)
        return self.folder.read(_place(reference)) if self.folder is not None else None

    def deleting(self, garbage: Iterable[tuple[str, bool]]) -> list[Command]:
        """Remove blobs that nobody needs any more; return the commands that are still to be asked for it.

        Each comes with whether nobody maps it either, so that its memory may be written again.
        """
        gone: list[str] = []
        for reference, unmapped in garbage:
            if not is_shared(reference):
                gone += self.keys_of(reference)
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
    """The blobs that one run needs now, and the garbage: those it gave up, and whether they may be recycled."""

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
        return [("PEXPIRE", name, keys.DATA_TTL) for each in alive for name in self.store.keys_of(each)]

    def deleting(self) -> list[Command]:
        """Remove the garbage, but for what is held anew; return the commands that are still to be asked for it."""
        given_up: dict[str, bool] = {}
        while self.garbage:
            reference, unmapped = self.garbage.popleft()
            given_up[reference] = unmapped and given_up.get(reference, True)
        for blob in [found for each in given_up if (found := self._living.get(each)) is not None]:
            blob.readers += not given_up.pop(blob.reference)  # for good: nobody says when it is mapped no more
        return self.store.deleting(given_up.items())

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


def messages_in(data: bytes, content: Content | None) -> list[Message]:
    """Return the messages in the bytes of an entry and the plain ones of its blob. Raises :class:`CodecError`."""
    return codec.decode(data, content) if data else codec.decode(content or b"")


def _without_altered(found: dict[str, Content | None]) -> set[str]:
    """Take out what a reference has not the digest of; return the references of that."""
    altered = {
        reference
        for reference, content in found.items()
        if content is not None and not is_digest_of(reference[len(_place(reference)) :], content)
    }
    found.update(dict.fromkeys(altered))
    return altered


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
