"""What a host and those who ask it say to each other through Redis, and how it is read.

What is wanted of a host is a state: sets of workers, with a version. A request changes that state at once or not at
all, and lapses by Redis' clock: one that waited in the queue of a host that stood still starts nothing afterwards.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from celerypipe.errors import BadSignature, ConfigError
from celerypipe.host.machine import Machine
from celerypipe.mailbox import protocol
from celerypipe.mailbox.protocol import Spoken
from celerypipe.mailbox.status import InHand
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command
from celerypipe.redis.keys import Names
from celerypipe.redis.script import Script
from celerypipe.redis.signing import Keyring, signed, unsigned

#: The Celery task by which a host is asked.
TASK = "celerypipe.host.request"
#: Where a worker of a host is: it waits until it may start, starts, is up, was told to end, ended, was given up.
WorkerPhase = Literal["waiting", "starting", "up", "stopping", "ended", "failed"]
#: The pools that may be asked for; Celery would take the path of a class, too.
PoolName = Literal["solo", "prefork", "threads"]
#: The ids of the sets of workers whose number follows what there is to do begin so.
AUTO = "auto-"
#: The field of what is wanted that counts its changes.
VERSION = "version"


class WorkerSet(msgspec.Struct, frozen=True):
    """So many workers of one queue, all the same, that a host keeps alive. Its id becomes part of the name of a file.

    ``owner``: the process whose end ends them, as heartbeats name it; empty: they stay until they are stopped.
    ``preload``: nodes that are warm before the first message, with their configurations. ``detached``: they outlive
    their host. ``generation``: one that is started again as a whole gets the next. ``ending``: none of them is wanted
    any more; "drain": each finishes what it is at.
    """

    queue: str
    count: Annotated[int, msgspec.Meta(ge=0)] = 1
    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}\Z")] = msgspec.field(
        default_factory=lambda: secrets.token_hex(4)
    )
    owner: str = ""
    pool: PoolName | None = None
    slots: Annotated[int, msgspec.Meta(ge=1)] | None = None
    preload: tuple[tuple[str, dict[str, Any]], ...] = ()
    detached: bool = False
    generation: int = 0
    ending: Literal["", "drain", "now"] = ""


class WorkerState(msgspec.Struct, frozen=True):
    """One worker of a host: ``place`` is what it is called where workers tell of themselves, once it is up.

    ``since``: seconds in this state; ``starts``: how often it was started; ``why``: what ended it last; ``held``: the
    messages that it has in hand; ``polled``: seconds since its queue last answered it, ``message``: since it last began
    one, None before the first. ``device``: the GPU that it sees, empty if its host gave it none.
    """

    set: str
    number: int
    queue: str
    state: WorkerPhase
    pid: int = 0
    place: str = ""
    since: float = 0.0
    starts: int = 0
    why: str = ""
    held: list[InHand] = []
    polled: float | None = None
    message: float | None = None
    device: str = ""


class HostRecord(msgspec.Struct, frozen=True):
    """What a host says of itself. ``place``: its process, as heartbeats name it; ``clock``: seconds ahead of Redis'.

    ``queues``: queue → most workers of it.
    """

    name: str
    place: str
    hostname: str
    machine: Machine
    queues: dict[str, int]
    protocol: tuple[int, int] = (protocol.SPOKEN.number, protocol.SPOKEN.oldest)
    keys: list[str] = []
    versions: dict[str, str] = {}
    started: float = 0.0
    clock: float = 0.0
    version: int = 0
    autoscale: list[str] = []
    sets: list[WorkerSet] = []
    workers: list[WorkerState] = []
    error: str = ""


class Request(msgspec.Struct, frozen=True):
    """What a host is asked for. ``until``: Redis' time in milliseconds after which it is void.

    ``set``: the whole set with "start"; with the others its id says which.
    """

    kind: Literal["start", "stop", "restart", "scale"]
    until: int
    set: WorkerSet
    id: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))


class Granted(msgspec.Struct, frozen=True):
    """What came of a request; ``error``: why nothing did."""

    error: str = ""


class WorkerEnd(msgspec.Struct, frozen=True):
    """The end of a worker as its host saw it.

    ``how``: exit status or signal; ``asked``: it was told to end; ``log``: its last lines; ``held``: the messages that
    it had in hand, by run and node; ``next``: what its host does about it.
    """

    host: str
    queue: str
    place: str
    pid: int
    how: str
    asked: bool
    next: str
    log: str = ""
    held: list[InHand] = []


# Change what is wanted, unless the request has lapsed: returns the new version, or 0.
_WANT = Script("""
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return redis.call('HINCRBY', KEYS[1], 'version', 1)
""")


def want(client: Client, host: str, wanted: WorkerSet, until: int, keyring: Keyring | None) -> int:
    """Have a set stand in what is wanted of a host; return the version, 0 if the time for that is over."""
    text = signed(msgspec.json.encode(wanted), keyring, "wanted", host)
    return int(_WANT(client, (client.names.wanted(host),), until, wanted.id, text, keys.HOST_TTL))


def unwant(names: Names, host: str, ids: Sequence[str]) -> list[Command]:
    """Return the commands that forget sets of which nothing is left."""
    return [("HDEL", names.wanted(host), *ids), ("HINCRBY", names.wanted(host), VERSION, 1)] if ids else []


def wanted_in(found: Sequence[bytes], host: str, keyring: Keyring | None) -> tuple[int, dict[str, WorkerSet], int]:
    """Read what is wanted: its version (0: nobody said anything), the sets, and how many were signed by a stranger."""
    said = dict(zip(found[::2], found[1::2], strict=True))
    version = int(said.pop(VERSION.encode(), b"0"))
    sets, refused = {}, 0
    for text in said.values():
        try:
            one = msgspec.json.decode(unsigned(text, keyring, "wanted", host), type=WorkerSet)
        except (BadSignature, ValueError):
            refused += 1
        else:
            sets[one.id] = one
    return version, sets, refused


def written(request: Request, host: str, keyring: Keyring | None) -> str:
    """Return a request as the argument of a task."""
    return signed(msgspec.json.encode(request), keyring, "host", host).hex()


def request_in(argument: object, host: str, keyring: Keyring | None) -> Request:
    """Read a request; :class:`ConfigError` says why nobody of ours wrote it."""
    try:
        data = bytes.fromhex(argument) if isinstance(argument, str) else b""
        return msgspec.json.decode(unsigned(data, keyring, "host", host), type=Request)
    except BadSignature:
        raise ConfigError(
            f"host {host}: a request without a signature of ours was refused: set CELERYPIPE_KEYS where it came from, "
            "as it is set here"
        ) from None
    except ValueError as error:
        raise ConfigError(f"host {host}: a task that is no request was refused: {error}") from None


def answering(names: Names, request: Request, granted: Granted) -> list[Command]:
    """Return the commands that answer a request."""
    key = names.answer(request.id)
    return [("RPUSH", key, msgspec.json.encode(granted)), ("PEXPIRE", key, keys.ANSWER_TTL)]


def saying_host(names: Names, record: HostRecord) -> Command:
    """Return the command that says what a host says of itself."""
    return ("SET", names.host(record.name), msgspec.json.encode(record), "PX", keys.HOST_TTL)


def host_in(text: bytes | None) -> HostRecord | None:
    """Read what a host says of itself; None: nobody of ours said that.

    Of another protocol what never changes is read: who it is, and that protocol.
    """
    try:
        said: Any = json.loads(text or b"null")
        spoken = Spoken(*said["protocol"])
        if protocol.SPOKEN.understands(spoken):
            return msgspec.convert(said, HostRecord)
        known = {name: said[name] for name in ("name", "place", "hostname", "protocol")}
        return msgspec.convert({**known, "machine": Machine(0, 0, 0, 0.0), "queues": {}}, HostRecord)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def saying_end(names: Names, end: WorkerEnd) -> list[Command]:
    """Return the commands that tell of the end of a worker."""
    adding = ("XADD", names.ends, "MAXLEN", "~", keys.ENDS_MOST, "*", "e", msgspec.json.encode(end))
    return [adding, ("PEXPIRE", names.ends, keys.ENDS_TTL)]


def end_in(fields: Sequence[bytes] | Mapping[bytes, bytes]) -> WorkerEnd | None:
    """Read an entry of that stream; None: nobody of ours wrote it."""
    try:
        return msgspec.json.decode(list(fields)[1], type=WorkerEnd)
    except (ValueError, IndexError):
        return None
