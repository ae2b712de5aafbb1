"""Why something was not found: what was asked, beside the nearest thing that had been kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from celerypipe import codec
from celerypipe.cache.asked import Asked
from celerypipe.cache.books import NOTES
from celerypipe.cache.index import BEGINNING, PAGE, said_by
from celerypipe.cache.store import NEWEST
from celerypipe.errors import CodecError, ConfigError, did_you_mean
from celerypipe.redis.connection import Client

#: A digest: its beginning tells it from others.
DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
#: What a question that found something unusable is told.
_WHY = {
    "refresh": "the run was told to compute it (--refresh)",
    "refused": "the same result was kept, and refused (that run said why)",
    "expired": "the same result was kept, and is older than its ttl",
    "failed": "the same result was kept, but it is a failure, and the run was told to run those again",
    "notes": "the input is the same, but it lacks keys of meta that the earlier input had, and nobody knows which of "
    "them the node sets",
    "gone": "the same result was kept, and has expired, or was evicted or removed",
}


class Missed(NamedTuple):
    """What was asked and not found, when, and why, if that was known."""

    asked: Asked
    at: float
    why: str


def explain(client: Client, run: str, node: str, message: str) -> str:
    """Return why a message of a run was not found in the cache. :class:`ConfigError` if nothing is noted of it.

    The beginning of the run's id will do.
    """
    run = _whole(client, run)
    missed = _missed(client, run, node, message)
    if missed.why in _WHY:
        return _WHY[missed.why]
    nearest: tuple[int, float, Asked] | None = None
    for created, other in _earlier(client, missed):
        distance = len(differences(missed.asked, other)) + (1000 if other.input != missed.asked.input else 0)
        if nearest is None or (distance, -created) < (nearest[0], -nearest[1]):
            nearest = (distance, created, other)
    if nearest is None:
        return f"no earlier result of {missed.asked.mark} is in the cache"
    found = differences(missed.asked, nearest[2])
    if not found:
        return _WHY["gone"]
    age = max(0.0, missed.at - nearest[1])
    return "\n".join([f"the nearest result is {_span(age)} older; what differs:", *(f"  {each}" for each in found)])


def differences(asked: Asked, was: Asked) -> list[str]:
    """Return the parts in which a question differs from an earlier one, a line each."""
    found = []
    if asked.code != was.code:
        found.append(f"the code: {short(asked.code)}, was {short(was.code)}")
    arguments = _changes(asked.configuration, was.configuration)
    found += [f"the configuration: {each}" for each in arguments]
    if not arguments and asked.exact != was.exact:
        found.append("the configuration: two values that look the same and are not")
    if asked.input != was.input:
        found.append("the input: another payload")
    found += [f"the meta: {each}" for each in _changes(asked.meta, was.meta, shown=False)]
    return found


def _changes(now: Mapping[str, str], was: Mapping[str, str], *, shown: bool = True) -> list[str]:
    found = []
    for name in [*now, *(each for each in was if each not in now)]:
        if name not in was:
            found.append(f"{name} {short(now[name])}, was not there" if shown else f"{name}, which was not there")
        elif name not in now:
            found.append(f"{name} is not there, was {short(was[name])}" if shown else f"{name} is not there")
        elif now[name] != was[name]:
            found.append(f"{name} {short(now[name])}, was {short(was[name])}" if shown else f"{name}, another value")
    return found


def short(text: str) -> str:
    """Return a text with its digests as far as one tells them from others."""
    return DIGEST.sub(r"\1…", text)


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} seconds"


def _whole(client: Client, word: str) -> str:
    """The id of the run that is meant."""
    runs: list[str] = [
        name.decode("utf-8", "replace") for name in client.call("ZRANGE", client.names.cache_runs, 0, -1)
    ]
    near = [run for run in runs if word and run.startswith(word)]
    if word in near or not near:
        return word
    if len(near) > 1:
        raise ConfigError(f"{word!r} begins the ids of {len(near)} runs ({', '.join(near)}); write more of it")
    return near[0]


def _missed(client: Client, run: str, node: str, message: str) -> Missed:
    name = client.names.cache_asked(run)
    data = client.call("HGET", name, f"{node}/{message}")
    if data is None:
        raise ConfigError(_nothing(client, run, node, message))
    try:
        said = codec.decode_value(data)
    except CodecError as error:
        raise ConfigError(f"the record of message {message} of {node} in run {run} cannot be read: {error}") from None
    match said:
        case {"asked": asked, "at": float(at), "why": str(why)}:
            return Missed(Asked.from_dict(asked), at, why)
    raise ConfigError(f"the record of message {message} of {node} in run {run} is damaged")


def _nothing(client: Client, run: str, node: str, message: str) -> str:
    fields = [name.decode("utf-8", "replace") for name in client.call("HKEYS", client.names.cache_asked(run))]
    if not fields:
        return f"no cache misses are recorded for run {run!r}: it had none, or it ran more than a day ago"
    nodes = {field.rpartition("/")[0] for field in fields}
    if node not in nodes:
        there = ", ".join(sorted(nodes)[:20])
        return f"run {run!r} has no cache misses at a node {node!r}{did_you_mean(node, nodes)}; it has some at {there}"
    return (
        f"no cache miss is recorded for message {message!r} at {node!r}: its result was found, or there is no such "
        f"message; at most {NOTES:,} misses of a run are recorded"
    )


def _earlier(client: Client, missed: Missed) -> Iterator[tuple[float, Asked]]:
    """The newest that was kept for the mark before it was asked for, other than its own result."""
    names = client.call("ZREVRANGE", client.names.cache_mark(missed.asked.mark), 0, NEWEST - 1)
    own = missed.asked.fingerprint.encode()
    wanted = [name.decode("utf-8", "replace") for name in names if name != own]
    for start in range(0, len(wanted), PAGE):
        commands = [
            ("GETRANGE", client.names.cache_entry(each), 0, BEGINNING - 1) for each in wanted[start : start + PAGE]
        ]
        for data in client.together(*commands):
            if (found := said_by(data)) is not None and found[0].created <= missed.at:
                yield found[0].created, found[1]
