"""What lies in the cache, for people: figures, a list, and the way to remove things.

What is listed is what stands there: nobody has looked at the seals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import redis

from celerypipe import codec
from celerypipe.cache.asked import Asked
from celerypipe.cache.entry import Failure, Head, shown
from celerypipe.cache.scripts import FORGET
from celerypipe.cache.store import blob_name, entry_name
from celerypipe.errors import CodecError
from celerypipe.redis.connection import Client, accepted
from celerypipe.redis.script import together

#: Entries that are read together, and bytes that are read of each: its head, and what was asked.
PAGE = 200
BEGINNING = 64 * 1024


@dataclass(frozen=True, slots=True)
class Figures:
    """What the cache of a Redis has, and what all runs together had of it; what hits saved."""

    entries: int
    blobs: int
    bytes: int
    hits: int
    misses: int
    kept: int
    evicted: int
    refused: int
    bytes_saved: int
    seconds_saved: float


@dataclass(frozen=True, slots=True)
class Totals:
    """The same as far as it is known without looking through the cache; ``items``: results and large bytes of such."""

    items: int
    bytes: int
    hits: int
    misses: int
    kept: int
    evicted: int
    refused: int
    bytes_saved: int
    seconds_saved: float


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry. ``used`` and ``created`` are Unix times; ``ttl``: seconds that it lives on, if nobody uses it."""

    fingerprint: str
    asked: Asked
    created: float
    used: float
    seconds: float
    size: int
    ttl: float
    failure: Failure | None
    blob: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        failure = None if self.failure is None else f"{self.failure.type}: {self.failure.text}"
        return {**asdict(self), "failure": failure}


def stats(client: Client) -> Figures:
    """Return the figures of the cache in this Redis."""
    kinds = Counter(name[:1] for name, _ in client.zscan_iter(client.names.cache_used, count=1000))
    known = asdict(totals(client))
    del known["items"]
    return Figures(entries=kinds[b"e"], blobs=kinds[b"b"], **known)


def totals(client: Client) -> Totals:
    """Return what is known of the cache in this Redis, in one round trip."""
    names = client.names
    asked = ("ZCARD", names.cache_used), ("HGET", names.cache_sizes, ""), ("HGETALL", names.cache_counts)
    items, size, said = accepted(client.together(*asked))
    counts = dict(zip(said[::2], said[1::2], strict=True))

    def count(name: bytes) -> int:
        return int(_number(counts.get(name)))

    return Totals(
        items=items,
        bytes=int(_number(size)),
        hits=count(b"hits"),
        misses=count(b"misses"),
        kept=count(b"kept"),
        evicted=count(b"evicted"),
        refused=count(b"refused"),
        bytes_saved=count(b"bytes"),
        seconds_saved=_number(counts.get(b"seconds")),
    )


def _number(said: bytes | None) -> float:
    try:
        value = float(said or 0)
    except ValueError:  # not written by us
        return 0.0
    return value if abs(value) < 1e18 else 0.0


def entries(client: Client, pattern: str = "*") -> Iterator[Listed]:
    """Return the entries whose mark or fingerprint matches (``*`` and ``?``), those used last first."""
    place = 0
    while page := client.call("ZREVRANGE", client.names.cache_used, place, place + PAGE - 1, "WITHSCORES"):
        place += PAGE
        pairs = [pair for pair in zip(page[::2], page[1::2], strict=True) if pair[0][:2] == b"e:"]
        used = {name[2:].decode("utf-8", "replace"): _number(score) / 1000 for name, score in pairs}
        yield from (each for each in _read(client, used) if _matches(each, pattern))


def _matches(each: Listed, pattern: str) -> bool:
    return any(fnmatchcase(text, pattern) for text in (each.asked.mark, each.fingerprint))


def _read(client: Client, used: dict[str, float]) -> Iterator[Listed]:
    names = [client.names.cache_entry(fingerprint) for fingerprint in used]
    commands = [("GETRANGE", name, 0, BEGINNING - 1) for name in names] + [("PTTL", name) for name in names]
    answers = client.together(*commands) if commands else []
    for place, (fingerprint, at) in enumerate(used.items()):
        if (found := said_by(answers[place])) is not None:
            head, asked = found
            blob = "" if head.blob is None else blob_name(head.blob)
            left = answers[place + len(used)]
            ttl = int(left) / 1000 if isinstance(left, int) else 0.0
            yield Listed(fingerprint, asked, head.created, at, head.seconds, head.size, ttl, head.failure, blob)


def said_by(data: object) -> tuple[Head, Asked] | None:
    """Return what the beginning of an entry says, and what was asked for it; None if it is gone, or not ours."""
    try:
        entry = shown(data if isinstance(data, bytes) else b"")
        return entry.head, Asked.from_dict(codec.decode_value(entry.asked))
    except CodecError:
        return None


def remove(client: Client, fingerprints: Iterable[str]) -> int:
    """Remove entries, and the large bytes that no other entry refers to; return how many bytes that were."""
    chosen = set(fingerprints)
    blobs: set[str] = set()
    needed: set[str] = set()
    for each in entries(client):
        (blobs if each.fingerprint in chosen else needed).add(each.blob)
    names = [*map(entry_name, chosen), *(blobs - needed - {""})]
    return sum(_forget(client, names[start : start + 1000]) for start in range(0, len(names), 1000))


def _forget(client: Client, names: Sequence[str | bytes]) -> int:
    return int(accepted(together(client, FORGET.command(client.names.cache_books, *names)))[0])


def clear(client: Client) -> int:
    """Remove the whole cache; return how many keys that were.

    What its books do not know is removed too, if this user may list keys; else it ends by itself.
    """
    count = 0
    while names := client.call("ZRANGE", client.names.cache_used, 0, 999):
        _forget(client, names)
        count += len(names)
    count += int(client.call("UNLINK", *client.names.cache_books, client.names.cache_counts))
    with suppress(redis.exceptions.NoPermissionError):
        left = list(client.scan_iter(f"{client.names.cache}*", count=1000))
        for start in range(0, len(left), 1000):
            count += int(client.call("UNLINK", *left[start : start + 1000]))
    return count
