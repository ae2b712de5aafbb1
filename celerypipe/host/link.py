"""A host's side of Redis: a thread that hears what is wanted, says what is there, and tells of ends.

It alone waits for Redis, so that the host goes on watching its workers while that is away.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from celerypipe.host.autoscale import QueueLoad, load_of
from celerypipe.host.crew import EndedWorker
from celerypipe.host.records import (
    HostRecord,
    WorkerEnd,
    WorkerSet,
    saying_end,
    saying_host,
    unwant,
    want,
    wanted_in,
)
from celerypipe.mailbox import hints
from celerypipe.mailbox.deaths import saying_death
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.liveness import OVER, is_named
from celerypipe.mailbox.presence import read_presences
from celerypipe.mailbox.status import InHand, read_held, read_status
from celerypipe.redis import keys
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Client, accepted, connect, said
from celerypipe.redis.script import Script, together
from celerypipe.redis.signing import Keyring

logger = logging.getLogger("celerypipe.host")

#: Seconds between two looks at what is wanted, each of which says what is there; a request makes it look at once.
LOOK = 1.0
#: And while workers are on their way.
LOOK_SOON = 0.2
#: Seconds between two tries to reach Redis.
RETRY = 0.5
#: Seconds that the owner of workers may be silent, while Redis answers, until they are ended.
OWNER_PATIENCE = 5.0

# Is this host's name its own? It is, if nobody has it, or who had it lives no more: returns whose it is, the
# time, and whether it was there: what was claimed once and is not there shows that Redis lost its data.
_CLAIM = Script("""
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  local host, pid, life = string.match(owner, '^(.*)%.(%d+)%.([^.]*)$')
  local beat = host and redis.call('GET', string.match(KEYS[1], '^[^:]*') .. ':heartbeat:' .. host .. '.' .. life)
  if beat and string.find(beat, ' ' .. pid .. ' ', 1, true) then
    return {owner, redis.call('TIME'), 1}
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
return {ARGV[1], time, owner and 1 or 0}
""")


@dataclass(frozen=True)
class Heard:
    """What is wanted, as it was heard ``at`` that time of this machine's clock.

    ``present``: the workers of this machine that are up, by process; ``held``: what workers have in hand, by life;
    ``loads``: what there is to do on the queues that are scaled; ``taken``: the other host that has this one's name.
    """

    at: float = -1e9
    version: int = 0
    sets: Mapping[str, WorkerSet] = field(default_factory=dict)
    present: Mapping[int, str] = field(default_factory=dict)
    held: Mapping[str, Sequence[InHand]] = field(default_factory=dict)
    loads: Mapping[str, QueueLoad] = field(default_factory=dict)
    taken: str = ""


class HostLink:
    """That thread. ``record`` is set, and ``ended`` added to, by the host's own."""

    def __init__(
        self, address: Address, name: str, place: str, keyring: Keyring | None, scaled: Sequence[str] = ()
    ) -> None:
        """``scaled``: the queues whose number of workers follows what there is to do."""
        self._scaled = scaled
        self._loads: dict[str, QueueLoad] = {}
        self._address, self._name, self._place, self._keyring = address, name, place, keyring
        self.heard = Heard()
        self.record: HostRecord | None = None
        #: Are workers on their way? Then it looks who is up.
        self.starting = False
        self._ended: deque[EndedWorker] = deque()
        self._gone: deque[str] = deque()
        self._silent: dict[str, float] = {}
        self._held: dict[str, list[InHand]] = {}
        self._nudged = threading.Event()
        self._closing = False
        self._away = False
        self._said_at = -1e9
        self._began = time.monotonic()
        #: When it began, by this machine's clock, which may be set meanwhile; how far that is ahead of Redis'.
        self._times = {"started": time.time(), "clock": 0.0}
        self._client: Client | None = None
        self._thread = threading.Thread(target=self._keep, name="celerypipe-host-link", daemon=True)

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._thread.ident is None:
            self._thread.start()

    def nudge(self) -> None:
        """What is wanted has changed, or what is there."""
        self._said_at = -1e9
        self._nudged.set()

    def tell(self, ended: Sequence[EndedWorker]) -> None:
        """These workers ended."""
        self._ended.extend(ended)
        if ended:
            self.nudge()

    def forget(self, set_ids: Sequence[str]) -> None:
        """Of these sets nothing is wanted, and nothing left."""
        self._gone.extend(set_ids)
        if set_ids:
            self.nudge()

    def close(self, patience: float) -> None:
        """Say what there is to say, and end."""
        self._closing = True
        self._nudged.set()
        if self._thread.ident is not None:
            self._thread.join(patience)

    def _keep(self) -> None:
        while not self._closing:
            self._nudged.wait(LOOK_SOON if self.starting else LOOK)
            self._nudged.clear()
            if not self._try():
                time.sleep(RETRY)
        self._try()
        if self._client is not None:
            self._client.close()

    def _try(self) -> bool:
        try:
            if self._client is None:
                self._client = connect(self._address, name="celerypipe-host", timeout=2.0)
            self._listen(self._client)
            self._speak(self._client)
        except Broken as error:
            if not self._away:
                logger.warning("%s; the workers go on, trying again", said(error))
            self._away = True
            if self._client is not None:
                self._client.close()
                self._client = None
            return False
        if self._away:
            logger.info("Redis answers again")
        self._away = False
        return True

    def _speak(self, client: Client) -> None:
        while self._ended:
            ended = self._ended[0]
            self._tell_end(client, ended)  # where that fails it is told again
            self._ended.popleft()
        while self._gone:
            accepted(client.together(*unwant(client.names, self._name, [self._gone[0]])))
            self._gone.popleft()
        record = self.record
        if record is not None and time.monotonic() - self._said_at >= 0.9 * LOOK and not self.heard.taken:
            self._said_at = time.monotonic()
            self._held = read_held(client) if record.workers else {}
            if self._scaled:
                status = read_status(client)
                self._loads = {queue: load_of(status, queue, record.hostname) for queue in self._scaled}
            client.call(*saying_host(client.names, msgspec.structs.replace(record, **self._times)))

    def _tell_end(self, client: Client, ended: EndedWorker) -> None:
        """Tell of it: runs that wait for it, and all who watch."""
        if ended.place:
            dying = [saying_death(client.names, ended.place, ended.death)]
            accepted(client.together(*dying))
            if "again" in ended.next:
                hints.say_freeing(client, [ended.queue], ended.place, keys.FREEING_MOST)
        life = Process.read(ended.place).life
        held = read_held(client).get(life) or self._held.get(life, [])  # its run may have taken them back by now
        how = "it ended as it was told to" if ended.asked else str(ended.death)
        end = WorkerEnd(
            self._name, ended.queue, ended.place, ended.pid, how, ended.asked, ended.next, ended.log, [*held]
        )
        accepted(client.together(*saying_end(client.names, end)))

    def _listen(self, client: Client) -> None:
        names = client.names
        claimed = f"{names.host(self._name)}:place", names.hosts, names.wanted(self._name)
        claiming = _CLAIM.command(claimed, self._place, keys.HOST_TTL, self._name)
        (whose, clock, was_there), found = accepted(together(client, claiming, ("HGETALL", names.wanted(self._name))))
        owner = whose.decode(errors="replace")
        now, at = time.time(), time.monotonic()
        ahead = round(now - int(clock[0]) - int(clock[1]) / 1e6, 3)
        self._times = {"started": now - (at - self._began), "clock": ahead}
        version, sets, refused = wanted_in(found, self._name, self._keyring)
        if refused and version != self.heard.version:
            logger.warning(
                "%d sets of workers in %s have no signature of ours, or no sense, and are ignored",
                refused,
                client.names.wanted(self._name),
            )
        if version < self.heard.version or not was_there:  # Redis lost its data; what came since stays
            lost = {name: each for name, each in self.heard.sets.items() if name not in sets}
            version = self._write_again(client, lost) or version
            sets |= lost
        orphaned = self._orphaned(client, sets.values())
        for each in orphaned:
            logger.warning("who started the workers of queue %s (%s) is gone: they end", each.queue, each.owner)
        here = socket.gethostname()
        present = {}
        if self.starting:
            present = {each["pid"]: each["id"] for each in read_presences(client) if each["host"] == here}
        sets = {name: each for name, each in sets.items() if each not in orphaned}
        self._gone.extend(each.id for each in orphaned)
        taken = "" if owner == self._place else owner
        self.heard = Heard(at, version, sets, present, self._held, self._loads, taken)

    def _write_again(self, client: Client, lost: Mapping[str, WorkerSet]) -> int:
        until = int(client.now() * 1000) + 5000
        return max([want(client, self._name, each, until, self._keyring) for each in lost.values()], default=0)

    def _orphaned(self, client: Client, sets: Iterable[WorkerSet]) -> list[WorkerSet]:
        """Return the sets whose owner is gone: it said so, or was silent for long enough while Redis was there."""
        owned = [each for each in sets if each.owner]
        owners = sorted({each.owner for each in owned})
        if not owners:
            self._silent.clear()
            return []
        processes = [Process.read(owner) for owner in owners]
        beats = client.call("MGET", *(client.names.heartbeat(each.host, each.life) for each in processes))
        now, gone = time.monotonic(), set()
        for owner, process, beat in zip(owners, processes, beats, strict=True):
            if is_named(process, beat):
                self._silent.pop(owner, None)
            elif beat == OVER.encode() or now - self._silent.setdefault(owner, now) > OWNER_PATIENCE:
                gone.add(owner)
        if self._away:  # it may have been silent for want of a Redis
            self._silent.clear()
        return [each for each in owned if each.owner in gone]
