"""Signatures: who has no key of ``CELERYPIPE_KEYS`` writes, alters or moves nothing on its way without being noticed.

A signature binds bytes to a place: what kind of thing they are, in which namespace and run, of which node. The number
and the try of a message are among its bytes. It is keyed BLAKE2b, whose state after the place is kept: a short message
costs half a microsecond. Large bytes that lie apart have a digest, and what is signed holds that.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from celerypipe.errors import BadSignature, ConfigError
from celerypipe.redis.namespace import DEFAULT

#: Bytes of a signature, which stands behind what it signs.
SIGNATURE = 16
#: The fewest bytes of a key; who sees a signed message could try all shorter ones.
SHORTEST = 16
#: The end of a reference to bytes that lie apart: this sign and their digest.
DIGEST_SIGN = "@"
_DIGEST_BYTES = 32
#: Places whose signers are kept at hand.
_SIGNERS = 1024
#: Sentences that a process remembers to have said.
_SAID = 1000

VARIABLE = "CELERYPIPE_KEYS"
_MAKE_ONE = 'make one: python -c "import secrets; print(secrets.token_hex(32))"'


class Signer:
    """Signs and verifies what belongs to one place. It keeps one hash a key, fed with the place already."""

    __slots__ = ("_states",)

    def __init__(self, states: Sequence[hashlib.blake2b]) -> None:
        self._states = tuple(states)

    def within(self, *places: str) -> Signer:
        """Return a signer for a place in this one."""
        states = []
        for state in self._states:
            further = state.copy()
            for place in places:
                further.update(_named(place))
            states.append(further)
        return Signer(states)

    def signature(self, data: bytes | memoryview) -> bytes:
        """Return the signature with the first key."""
        state = self._states[0].copy()
        state.update(data)
        return state.digest()

    def sign(self, data: bytes) -> bytes:
        """Return the bytes with their signature behind them."""
        return data + self.signature(data)

    def verifies(self, signed: bytes) -> bool:
        """Does the signature behind these bytes belong to them, to this place and to one of the keys?"""
        data, signature = memoryview(signed)[:-SIGNATURE], signed[-SIGNATURE:]
        for each in self._states:
            state = each.copy()
            state.update(data)
            if hmac.compare_digest(state.digest(), signature):
                return True
        return False

    def unsign(self, signed: bytes) -> bytes:
        """Return the bytes without their signature; :class:`BadSignature` if it does not belong there."""
        if not self.verifies(signed):
            raise BadSignature("it has no signature of ours for this place")
        return signed[:-SIGNATURE]


def _named(place: str) -> bytes:
    text = place.encode()
    return b"%d:%b" % (len(text), text)  # with lengths, no two places look the same


class Refusals:
    """What was refused here, counted by kind; each kind is worth one sentence for each place."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._said: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def add(self, what: str, where: str, count: int = 1) -> bool:
        """Count some; return whether there is something to say, for the first time there."""
        with self._lock:
            self.counts[what] += count
            new = (what, where) not in self._said
            if len(self._said) >= _SAID:
                self._said.clear()
            self._said.add((what, where))
            return new

    @property
    def total(self) -> int:
        """How many things were refused."""
        return self.counts.total()


class Keyring:
    """The keys of a runner or a worker: the first one signs, all of them verify, so that keys can be exchanged.

    What is signed in one namespace is not in another one.

    ``ids`` names them without giving them away. It is never shown with its keys.
    """

    def __init__(self, keys: Sequence[bytes], namespace: str = DEFAULT) -> None:
        # As many bytes as the hash takes, whatever the length of the key.
        derived = [hashlib.blake2b(key, person=b"celerypipe key").digest() for key in keys]
        bare = Signer([hashlib.blake2b(key=key, digest_size=SIGNATURE) for key in derived])
        inner = () if namespace == DEFAULT else ("namespace", namespace)
        self._root = bare.within(*inner) if inner else bare
        self._key, self._within = derived[0], b"".join(map(_named, inner))
        self.ids = [hashlib.blake2b(b"id", key=key, digest_size=4).hexdigest() for key in derived]
        self.refusals = Refusals()
        #: The signer of a kind of thing in a run and node.
        self.signer = functools.lru_cache(_SIGNERS)(self._root.within)

    @classmethod
    def parse(cls, text: str, namespace: str = DEFAULT) -> Keyring | None:
        """Read keys separated by commas; None if there are none. A :class:`ConfigError` does not show them."""
        if not text.strip():
            return None
        keys = [part.strip().encode() for part in text.split(",")]
        for number, key in enumerate(keys, 1):
            if len(key) < SHORTEST:
                which = f"key {number} of {len(keys)}" if len(keys) > 1 else "the key"
                has = f"has {len(key)} bytes" if key else "is empty"
                raise ConfigError(f"{VARIABLE}: {which} {has}; each needs at least {SHORTEST}, {_MAKE_ONE}")
        return cls(keys, namespace)

    def away(self, kind: str) -> tuple[bytes, bytes]:
        """Return the key that signs, and what is hashed before the rest of a place of that kind: for a process that has
        the standard library only, and signs as :class:`Signer` does."""
        return self._key, self._within + _named(kind)

    def of_bell(self, mark: str, bell: Sequence[Any]) -> Signer:
        """Return the signer of a task of that mark with these arguments; it signs nothing but its place."""
        return self._root.within("task", mark, *map(str, bell))


def digest(segments: Sequence[bytes | memoryview]) -> str:
    """Return what tells these bytes from all others, as it ends a reference to them."""
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for segment in segments:
        state.update(memoryview(segment).cast("B"))
    return DIGEST_SIGN + state.hexdigest()


def is_digest_of(said: str, content: bytes | memoryview) -> bool:
    """Is this the digest of these bytes?"""
    return hmac.compare_digest(digest([content]).encode(), said.encode())


def refused(what: str, where: str) -> str:
    """Return the sentence about a thing that was refused for its signature."""
    return (
        f"{where}: refused a {what} that nobody with our keys signed for this place: unsigned, altered, or from "
        "another run, node or number; further ones are counted, not logged"
    )


def signed_bell(keyring: Keyring | None, mark: str, bell: list[Any]) -> list[Any]:
    """Return the arguments of a task: run, node, slot and token, and their signature if there are keys."""
    return bell if keyring is None else [*bell, keyring.of_bell(mark, bell).signature(b"").hex()]


def refused_bell(keyring: Keyring | None, mark: str, bell: Sequence[Any], signature: object = "") -> str:
    """Return what is wrong with the signature of a task, and the cure; empty if nothing is."""
    if keyring is None:
        if not signature:
            return ""
        return f"its run signs, and this worker has no keys: set {VARIABLE} here as it is there, and restart the worker"
    if not signature:
        return f"it is not signed: set {VARIABLE} where its run is started, as it is here"
    with contextlib.suppress(ValueError):
        if keyring.of_bell(mark, bell).verifies(bytes.fromhex(str(signature))):
            return ""
    return f"it was altered, or signed with a key that is not known here: set {VARIABLE} the same on both sides"


def signed(data: bytes, keyring: Keyring | None, *place: str) -> bytes:
    """Return the bytes with a signature for that place behind them; without keys as they are."""
    return data if keyring is None else keyring.signer(*place).sign(data)


def unsigned(data: bytes, keyring: Keyring | None, *place: str) -> bytes:
    """Return the bytes without it; :class:`BadSignature` if it does not belong there."""
    return data if keyring is None else keyring.signer(*place).unsign(data)


def strangers(mine: Keyring | None, theirs: Sequence[str]) -> str:
    """Return why a runner and a worker with keys of these ids do not understand each other; empty if they do."""
    if mine is None:
        if not theirs:
            return ""
        return f"takes signed messages only: set {VARIABLE} here as it is there"
    if not theirs:
        return f"has no keys, and this run signs its messages: set {VARIABLE} there as it is here, and restart it"
    if theirs[0] in mine.ids and mine.ids[0] in theirs:
        return ""
    return (
        f"has other keys: the first key of {VARIABLE}, which signs, must be among the keys of the other side; "
        "to exchange keys, first add the new one behind the old one on all machines"
    )
