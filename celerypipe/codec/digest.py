"""The digest of a value: BLAKE3 over what the codec writes of it, so as exact by type as the codec is.

Nothing is joined or copied for it: an array's memory goes into the hash as it lies there. Equal values have equal
digests in every process, whatever its hash seed: the members of a set, which have no order, are put into one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from blake3 import blake3

from celerypipe.codec.encoding import encoding
from celerypipe.codec.plain import ATOMS
from celerypipe.codec.refusal import Refusal
from celerypipe.codec.writer import Writer, pack
from celerypipe.message.files import File
from celerypipe.message.message import Message


class DigestWriter(Writer):
    """Writes what is only digested: sets in an order of their own, messages without what is new in each.

    A message inside a payload (a batch that a join put together) is its payload, who sent it, and the entries of its
    meta that ``meta`` names; its id and times differ in each run.
    """

    __slots__ = ("meta",)

    def __init__(self, careful: bool = False, meta: Collection[str] = ()) -> None:
        super().__init__(careful)
        self.meta = meta

    def message(self, message: Message, depth: int = 0) -> list[Any]:
        self.part()
        place = ".payload"
        try:
            words = [self.word(message.creator, depth), self.word(message.payload, depth)]
            for key in self.meta:
                place = f".meta[{key!r}]"
                if key in message.meta:
                    words += (key, self.word(message.meta[key], depth))
        except Refusal as refusal:
            raise refusal.inside(place) from None
        return words

    def file(self, file: File) -> tuple[Any, ...]:
        """Its content counts, and the end of its name, which may say what is inside; not what it is called."""
        self.part()
        return file.digest, file.suffix

    def members(self, items: Iterable[Any], depth: int) -> list[Any]:
        found = list(items)
        self.count(len(found))
        # The first word says which of the two ways it is, so that no member of one passes for one of the other.
        if self.atoms.issuperset(map(type, found)):
            return [True, *sorted(map(pack, found))]
        return [False, *sorted(self._alone(item, depth) for item in found)]

    def _alone(self, item: Any, depth: int) -> bytes:
        """The digest of one member; its buffers have places of their own, not those that the order would give."""
        writer = DigestWriter(self.atoms is not ATOMS, self.meta)
        return _hashed(writer, pack(writer.word(item, depth))).digest()


def digest(value: Any, place: str = "value", meta: Collection[str] = ()) -> str:
    """Return the digest of a value, 64 hexadecimal digits.

    :class:`~celerypipe.errors.CodecError` for what cannot travel: it begins with ``place``. ``meta``: entries of the
    meta of messages inside the value that count.
    """

    def content(writer: DigestWriter) -> Any:
        try:
            return writer.tree(value)
        except Refusal as refusal:
            raise refusal.inside(place) from None

    writer, header = encoding(content, lambda careful: DigestWriter(careful, meta))
    return _hashed(writer, header).hexdigest()


def _hashed(writer: Writer, header: bytes) -> blake3:
    """The header, which says itself where it ends and how long each buffer is, and then the buffers."""
    hasher = blake3(header)
    for segment in writer.segments:
        hasher.update(segment)
    return hasher
