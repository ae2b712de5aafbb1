"""An entry of the result cache: what was asked, and what came of it, as bytes that are trusted by nobody.

::

    offset  bytes
    0       2      b"cr"
    2       1      ENTRY_VERSION
    3       1      how it is sealed: 0 = a checksum, 1 = a signature
    4       4      length of the head, little-endian
    8       4      length of what was asked
    12      …      the head, msgpack: when, how long it took, ttl, size, blob, failure, forms of the outputs
    …       …      what was asked, a value of the codec
    …       …      the outputs, messages of the codec, or their head if their body is a blob
    -16     16     the seal, over all of it and the fingerprint

Up to 64 KiB of outputs lie in the entry. More are a blob that is named by its digest, so that equal results are kept
once and altered ones are noticed.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3

from celerypipe import codec
from celerypipe.cache.kept import Form, Kept
from celerypipe.cache.seal import SEAL, Refused, Seal
from celerypipe.codec import Content
from celerypipe.errors import CodecError
from celerypipe.message.message import Message

ENTRY_VERSION = 1
#: The most bytes of outputs that lie in an entry.
INLINE_LIMIT = 64 * 1024
#: No entry is longer, and no more is ever read of one.
ENTRY_LIMIT = 1024 * 1024
#: Blobs up to here are read and written with everything else; larger ones by threads of their own.
BLOB_NEAR = 1024 * 1024
#: Redis ends at 512 MB a value.
CHUNK = 256 * 1024 * 1024
#: The largest blob that an entry may refer to.
BLOB_LIMIT = 64 * 1024 * 1024 * 1024
#: Characters that are kept of a text or a traceback of a failure.
TEXT_LIMIT = 32 * 1024
#: Seconds by which the clock of who kept an entry may be ahead of ours.
_CLOCKS = 300.0

_MAGIC = b"cr"
_PREAMBLE = struct.Struct("<2sBBII")
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """What a node raised: the kind that errors have, the name of its class, its text and its traceback."""

    kind: str
    type: str
    text: str
    traceback: str = ""

    def shortened(self) -> Failure:
        """Return it with no more text than is kept: the beginning of what was said, the end of the traceback."""
        texts = (self.kind[:100], self.type[:200], self.text[:TEXT_LIMIT], self.traceback[-TEXT_LIMIT:])
        return Failure(*(text.encode("utf-8", "replace").decode() for text in texts))


class Bulk(msgspec.Struct, frozen=True, array_like=True):
    """Large bytes that lie apart. ``whole``: all of the outputs; else their body, the head is in the entry."""

    digest: str
    size: int
    whole: bool

    @property
    def chunks(self) -> list[int]:
        """The length of each part that it is stored in."""
        full, rest = divmod(self.size, CHUNK)
        return [CHUNK] * full + ([rest] if rest else [])

    def assembled(self, parts: Sequence[object] | None) -> Content | Refused | None:
        """Return the bytes that Redis gave in parts; None if they are gone, what is to be said if they are others."""
        found = [each for each in parts or () if isinstance(each, bytes)]
        content = found[0] if len(found) == 1 else b"".join(found)
        try:
            self.check(content)
        except Refused as refused:
            return refused if content else None
        return content

    def check(self, content: Content) -> None:
        """Raise :class:`Refused` if these are other bytes, or none."""
        if not content:
            raise Refused("refer to large bytes that are gone")
        if len(content) != self.size or digest(content) != self.digest:
            raise Refused("refer to large bytes that are cut off or altered")


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What an entry says of its result. Times are seconds; ``size`` is that of the outputs, in the entry or apart."""

    created: float
    seconds: float
    ttl: float | None
    size: int
    blob: Bulk | None
    failure: Failure | None
    forms: list[Form]

    def fits(self, notes: Collection[str]) -> bool:
        """Has an input with these notes all that the outputs inherited from theirs?"""
        return all(name in notes for form in self.forms for name in form.inherited)

    def is_over(self, ttl: float | None) -> bool:
        """Is it older than it may be, or than whoever asks would have it?"""
        age = time.time() - self.created
        return age < -_CLOCKS or any(each is not None and age > each for each in (self.ttl, ttl))


class SealedEntry(NamedTuple):
    """An entry that is ready to be stored: its head, all of its bytes, and those of its blob."""

    head: Head
    data: bytes
    body: bytes


class Opened(NamedTuple):
    """An entry that was read and verified."""

    head: Head
    asked: memoryview
    outputs: memoryview

    def messages(self, content: Content | None) -> list[Message]:
        """Return what was kept of the outputs, with the verified bytes of the blob. Raises :class:`CodecError`."""
        blob = self.head.blob
        if blob is None:
            found = codec.decode(self.outputs) if self.outputs else []
        elif content is None:
            raise Refused("refer to large bytes that are gone")
        else:
            found = codec.decode(content) if blob.whole else codec.decode(self.outputs, content)
        if len(found) != len(self.head.forms):
            raise CodecError(f"{len(found)} outputs where {len(self.head.forms)} were kept")
        return found


def sealed(
    seal: Seal, fingerprint: str, asked: Mapping[str, Any], result: Kept | Failure, seconds: float, ttl: float | None
) -> SealedEntry:
    """Return the entry of a result. Raises :class:`CodecError` if it is too large for one."""
    blob, outputs, body, forms, size = None, b"", b"", [], 0
    if isinstance(result, Kept):
        forms, size = result.forms, result.size
        joined = codec.Apart(result.head, [result.body], len(result.body)).joined
        if result.size <= INLINE_LIMIT:
            outputs = joined() if result.forms else b""
        else:
            apart = len(result.head) <= INLINE_LIMIT
            outputs, body = (result.head, result.body) if apart else (b"", joined())
            blob = Bulk(digest(body), len(body), not apart)
    failure = result.shortened() if isinstance(result, Failure) else None
    head = Head(time.time(), seconds, ttl, size, blob, failure, list(forms))
    packed, question = msgspec.msgpack.encode(head), codec.encode_value(dict(asked))
    preamble = _PREAMBLE.pack(_MAGIC, ENTRY_VERSION, seal.kind, len(packed), len(question))
    data = b"".join((preamble, packed, question, outputs))
    if len(data) + SEAL > ENTRY_LIMIT:
        raise CodecError(f"what was asked is {len(question):,} bytes long: too much to be remembered by")
    return SealedEntry(head, data + seal.of(fingerprint, data), body)


def opened(seal: Seal, fingerprint: str, data: bytes) -> Opened:
    """Return the entry in these bytes; :class:`Refused` if nobody kept it so under this fingerprint."""
    if len(data) < _PREAMBLE.size + SEAL or len(data) > ENTRY_LIMIT or data[:2] != _MAGIC:
        raise Refused("are cut off, altered, or of another question")
    _, version, kind, _, _ = _PREAMBLE.unpack_from(data)
    if version != ENTRY_VERSION:
        raise Refused(f"are of version {version} of the cache, and this celerypipe reads version {ENTRY_VERSION}")
    seal.check(fingerprint, data[:-SEAL], data[-SEAL:], kind)
    return _parts(data, len(data) - SEAL)


def shown(data: bytes) -> Opened:
    """Return what the beginning of an entry says, for people to read: nobody has looked at its seal.

    :class:`CodecError` if that is not the beginning of one.
    """
    if len(data) < _PREAMBLE.size or _PREAMBLE.unpack_from(data)[:2] != (_MAGIC, ENTRY_VERSION):
        raise CodecError("this is no entry of the cache")
    return _parts(data, len(data))


def _parts(data: bytes, end: int) -> Opened:
    *_, head_size, asked_size = _PREAMBLE.unpack_from(data)
    view = memoryview(data)[_PREAMBLE.size : end]
    try:
        head = _HEAD.decode(view[:head_size])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("have a head that cannot be read") from error
    if head.blob is not None and not (_DIGEST.fullmatch(head.blob.digest) and 0 < head.blob.size <= BLOB_LIMIT):
        raise Refused("have a head that cannot be read")
    return Opened(head, view[head_size : head_size + asked_size], view[head_size + asked_size :])


def digest(content: Content) -> str:
    """Return the name of large bytes."""
    return str(blake3(content).hexdigest())


_HEAD = msgspec.msgpack.Decoder(Head)
