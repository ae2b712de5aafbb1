"""A worker's presence: its own key in Redis, which says who it is, what it serves and that it lives.

Read by runners (is anyone there? which arguments does that mark take?), by ``Embedded`` and by the command line;
``inspect`` would take its full timeout every time, and a busy solo worker does not answer it at all.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import redis

from celerypipe.mailbox import protocol
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.liveness import is_named, revision_in
from celerypipe.mailbox.protocol import Spoken, protocol_of, unlike
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.redis.keys import USUAL, Names
from celerypipe.redis.namespace import DEFAULT, is_namespace, name_in, named
from celerypipe.redis.script import Script
from celerypipe.redis.signing import Keyring, strangers

logger = logging.getLogger("celerypipe.worker")

Presence = dict[str, Any]

#: A worker with more is none: whoever reads that looks at each slot.
MOST_SLOTS = 65_536


class ArgumentShape(msgspec.Struct):
    """What a presence says of an argument of a node at least."""

    name: str
    required: bool
    digest: str = ""


class MarkShape(msgspec.Struct):
    """What a presence says of a node at least."""

    mark: str
    arguments: list[ArgumentShape]
    code: str = ""
    cache_meta: list[str] = []


class WorkerShape(msgspec.Struct):
    """What a presence says in every protocol; without ``protocol`` in one that is older than all with a number."""

    id: str
    host: str
    pid: int
    queues: list[str]
    protocol: tuple[int, int] = (0, 0)


class ProgramShape(msgspec.Struct):
    """What a presence says of a program that its nodes may run: the values it needs; ``missing``: why it cannot run."""

    values: list[str]
    missing: str = ""


class PresenceShape(msgspec.Struct):
    """What a presence says at least, and what is taken for the rest."""

    id: str
    host: str
    pid: int
    pool: str
    slots: Annotated[int, msgspec.Meta(ge=0, le=MOST_SLOTS)]
    queues: list[str]
    marks: dict[str, MarkShape]
    versions: dict[str, Any]
    interrupts: bool = False
    keeps_interrupted: bool = False
    shared: str = ""
    compressions: list[str] = []
    unmet: dict[str, list[str]] = {}
    keys: list[str] = []
    cache: str = ""
    programs: dict[str, ProgramShape] = {}
    processes: list[int] = []
    started: float = 0.0
    clock: float = 0.0
    name: str = ""
    revision: str = ""


#: Redis' clock, and who is on these lists: name, when it was put there, heartbeat. As the script that says who is dead,
#: it makes the names of keys itself.
_LISTED = Script("""
local prefix, found, seen = string.match(KEYS[1], '^[^:]*'), {}, {}
for _, list in ipairs(KEYS) do
  local members = redis.call('ZRANGE', list, 0, -1, 'WITHSCORES')
  for place = 1, #members, 2 do
    local name = members[place]
    local host, life = string.match(name, '^(.*)%.%d+%.([^.]*)$')
    if not seen[name] then
      seen[name] = true
      local beat = host and redis.pcall('GET', prefix .. ':heartbeat:' .. host .. '.' .. life)
      found[#found+1], found[#found+2], found[#found+3] = name, members[place+1], type(beat) == 'string' and beat
    end
  end
end
return {redis.call('TIME')[1], found}
""")


class LiveWorkers:
    """The live workers of some queues, for who looks at them again and again.

    What a worker says of itself is long and hardly changes: it is read when the worker is first seen, and when its
    heartbeat tells of another revision. Of one that is gone, or whose heartbeat cannot be read here, when it was put on
    the list anew: a power cut ends thousands, and each run would read them again until their names are forgotten.
    """

    def __init__(self) -> None:
        #: What was read of those on the lists, and when they had been put there.
        self._known: dict[str, tuple[float, Presence | None]] = {}

    @staticmethod
    def asking(names: Names, queues: Iterable[str]) -> Command:
        """Return the command whose answer :meth:`told` takes."""
        return _LISTED.command([*map(names.serving, sorted({*queues}))])

    def told(self, client: Client, answer: Any) -> list[Presence]:
        """Return what each says of itself. One round trip more if there are some that are not known, else none."""
        clock, listed = answer
        said = {
            name.decode(errors="replace"): (float(score), beat)
            for name, score, beat in zip(listed[::3], listed[1::3], listed[2::3], strict=True)
        }
        known = {
            name: record
            for name, (score, record) in self._known.items()
            if name in said and _is_as_it_was(record, score, name, *said[name])
        }
        found, read = _living(client, client.names, int(clock), said, known)
        self._known = {name: (said[name][0], record) for name, record in read.items()}
        return found


def _is_as_it_was(record: Presence | None, then: float, name: str, score: float, beat: bytes | None) -> bool:
    """Does what was read of a worker still say what it says?"""
    if is_named(Process.read(name), beat):
        return record is not None and bool(record.get("revision")) and record["revision"] == revision_in(beat)
    return score == then


def presences_of(client: Client, queues: Iterable[str], called: Names | None = None) -> list[Presence]:
    """As :func:`read_presences`, of those who serve one of these queues: the others are not read."""
    called = called or client.names
    return _read(client, called, [*map(called.serving, sorted({*queues}))])


def read_presences(client: Client, called: Names | None = None) -> list[Presence]:
    """Return what every live worker says of itself: those whose process is named by their heartbeat.

    Of another protocol those that said so lately: how they beat is not known here. ``called``: the keys of another
    namespace than the client's.
    """
    called = called or client.names
    return _read(client, called, [called.workers])


def _read(client: Client, called: Names, lists: Sequence[str]) -> list[Presence]:
    """Return those on these lists that live."""
    if not lists:
        return []
    asked = [("ZRANGE", each, 0, -1, "WITHSCORES") for each in lists]
    *listed, clock = accepted(client.together(*asked, ("TIME",)))
    scores = {
        name.decode(errors="replace"): float(score)
        for each in listed
        for name, score in zip(each[::2], each[1::2], strict=True)
    }
    processes = [Process.read(name) for name in scores]
    beats = [called.heartbeat(process.host, process.life) for process in processes]
    found = client.call("MGET", *beats) if beats else []
    said = {name: (score, beat) for (name, score), beat in zip(scores.items(), found, strict=True)}
    return _living(client, called, int(clock[0]), said, {})[0]


def _living(
    client: Client,
    called: Names,
    clock: int,
    said: Mapping[str, tuple[float, bytes | None]],
    known: Mapping[str, Presence | None],
) -> tuple[list[Presence], dict[str, Presence | None]]:
    """Of the names on a list, with when they were put there and the heartbeat: what those say that live.

    And all that was read, or was known: most of a list that is long are gone.
    """
    lately = (clock - keys.FOREIGN_TTL) * 1000
    lives = {name: is_named(Process.read(name), beat) for name, (_, beat) in said.items()}
    there = [name for name, (score, _) in said.items() if lives[name] or score > lately]
    unknown = [name for name in there if name not in known]
    texts = client.call("MGET", *map(called.presence, unknown)) if unknown else []
    records = {**known, **{name: _record(text) for name, text in zip(unknown, texts, strict=True)}}
    read = {name: records[name] for name in there}
    return [each for name, each in read.items() if each is not None and (lives[name] or foreign(each))], read


def _record(text: bytes | None) -> Presence | None:
    """What one worker says; None if no worker of ours said it: one stranger must not take all runs down.

    Of a worker whose protocol is unknown here only that is taken which never changes: it has no slots, and no marks.
    """
    if text is None:
        return None
    try:
        record = json.loads(text)
        known = msgspec.to_builtins(msgspec.convert(record, WorkerShape))
        "".join((known["id"], known["host"], *known["queues"])).encode()  # no name has half a character
        if not protocol.SPOKEN.understands(Spoken(*known["protocol"])):
            return {**known, "pool": "", "slots": 0, "marks": {}, "versions": {}, "interrupts": False}
        shape = msgspec.convert(record, PresenceShape)
    except (ValueError, RecursionError) as error:
        logger.debug("a presence that no worker of celerypipe wrote: %s", error)
        return None
    return {**msgspec.structs.asdict(shape), **record}


def foreign(worker: Presence) -> str:
    """Say that it speaks another protocol than this side, and the cure; nothing if it does not."""
    return unlike(protocol_of(worker.get("protocol")) or Spoken(), worker["host"])


def stranger(worker: Presence, keyring: Keyring | None) -> str:
    """Say why this side and a worker do not understand each other, and the cure; nothing if they do."""
    return foreign(worker) or strangers(keyring, worker.get("keys", ()))


# A worker is there, on each list that has it; the dead are forgotten there. ``clock`` is by how many seconds its clock
# is ahead of Redis'. Its user may be one of its namespace alone, so that the list of namespaces is none of the KEYS.
_SAY = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seconds = tonumber(ARGV[3])
local clock = string.format(', "clock": %.3f}', tonumber(ARGV[4]) - now / 1000)
redis.call('SET', KEYS[1], string.sub(ARGV[1], 1, -2) .. clock, 'EX', seconds)
for place = 2, #KEYS do
  redis.call('ZADD', KEYS[place], now, ARGV[2])
  redis.call('ZREMRANGEBYSCORE', KEYS[place], '-inf', '(' .. string.format('%.0f', now - seconds * 1000))
  redis.call('EXPIRE', KEYS[place], 10 * seconds)
end
if ARGV[5] then
  redis.pcall('ZADD', ARGV[5], now, ARGV[6])
  redis.pcall('EXPIRE', ARGV[5], 10 * seconds)
end
return 1
"""


def revised(record: Presence) -> Presence:
    """Return it with what tells it from all that the worker said of itself before."""
    return {**record, "revision": f"{zlib.crc32(json.dumps(record).encode()):08x}"}


def saying_presence(names: Names, record: Presence) -> Command:
    """Return the command that says that a worker is there; None stands for the time where it is."""
    own = record["id"]
    lists = [names.workers, *map(names.serving, record["queues"])]
    namespace = () if names == USUAL else (keys.NAMESPACES, name_in(names))
    said = (json.dumps(record), own, keys.PRESENCE_TTL, None, *namespace)
    return ("EVAL", _SAY, 1 + len(lists), names.presence(own), *lists, *said)


def elsewhere(client: Client, queue: str) -> list[str]:
    """Return the other namespaces of this Redis in which live workers serve a queue of that name."""
    try:
        since = int((client.now() - keys.PRESENCE_TTL) * 1000)
        told: Any = client.zrangebyscore(keys.NAMESPACES, since, "+inf")
        spaces = sorted({DEFAULT, *(name.decode(errors="replace") for name in told)})
        found = [(space, named(space)) for space in spaces if is_namespace(space)]
        return [space for space, names in found if names != client.names and presences_of(client, [queue], names)]
    except redis.exceptions.NoPermissionError:  # a user of one namespace alone
        return []


def removing_presence(names: Names, worker_id: str, queues: Iterable[str]) -> list[Command]:
    """Return the commands that take a worker off all lists."""
    lists = (names.workers, *map(names.serving, queues))
    return [("DEL", names.presence(worker_id)), *(("ZREM", each, worker_id) for each in lists)]
