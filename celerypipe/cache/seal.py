"""The seal of an entry: bytes behind it that belong to it and to its fingerprint.

With keys it is their signature, so that nobody who merely writes to the cache can plant a result; without, a checksum,
which tells what was cut off, altered or moved. Both cost about a microsecond.
"""

from __future__ import annotations

import hmac

from blake3 import blake3

from celerypipe.errors import CodecError
from celerypipe.redis.signing import SIGNATURE, VARIABLE, Keyring

#: Bytes of a seal, signed or not.
SEAL = SIGNATURE
CHECKED, SIGNED = 0, 1


class Refused(CodecError):
    """What the cache has is not what somebody kept there. ``kind`` is what is said once."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Seal:
    """Seals and opens entries with the keys of this process, if it has some."""

    def __init__(self, keyring: Keyring | None) -> None:
        self._signer = None if keyring is None else keyring.signer("cache entry")
        self.kind = CHECKED if self._signer is None else SIGNED

    def of(self, fingerprint: str, data: bytes) -> bytes:
        """Return the seal of these bytes under this fingerprint."""
        if self._signer is not None:
            return self._signer.within(fingerprint).signature(data)
        return _checksum(fingerprint, data)

    def check(self, fingerprint: str, data: bytes, seal: bytes, kind: int) -> None:
        """Raise :class:`Refused` unless the seal belongs to the bytes, the fingerprint and one of our keys."""
        if kind not in (CHECKED, SIGNED):
            raise Refused("are sealed in a way that is not known here")
        if self._signer is None:
            if kind == SIGNED:
                raise Refused(f"are signed, and here are no keys: set {VARIABLE} as it is where they were made")
            if not hmac.compare_digest(_checksum(fingerprint, data), seal):
                raise Refused("are cut off, altered, or of another question")
        elif kind == CHECKED:
            raise Refused(f"are not signed, and {VARIABLE} is set here")
        elif not self._signer.within(fingerprint).verifies(data + seal):
            raise Refused("are altered, of another question, or signed with a key that is not known here")


def _checksum(fingerprint: str, data: bytes) -> bytes:
    state = blake3(fingerprint.encode())
    state.update(b"\0")
    state.update(data)
    return bytes(state.digest(SEAL))
