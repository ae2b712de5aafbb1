"""Which hosts there are, as Redis remembers them, and for each that is not up the reason and the cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from celerypipe.errors import HostError, did_you_mean
from celerypipe.host.allowed import wrong_host
from celerypipe.host.records import HostRecord, host_in
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.liveness import OVER, is_named
from celerypipe.mailbox.protocol import Spoken, unlike
from celerypipe.redis.connection import Client
from celerypipe.redis.signing import Keyring, strangers

#: What a host can be: it is there and listens to us; it is gone; it is there and does not; nobody has ever seen it.
HostState = Literal["up", "gone", "refused", "never seen"]


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host. ``since``: seconds in this state, where that is known; ``why``: reason and cure where it is not up."""

    name: str
    state: HostState
    since: float | None = None
    why: str = ""
    record: HostRecord | None = None
    #: It is known that its process ended, and its workers with it.
    over: bool = False

    def require_up(self) -> HostRecord:
        """Return what it says of itself; :class:`HostError`, if it is not up, with the reason and the cure."""
        if self.state != "up" or self.record is None:
            raise HostError(f"host {self.name}: {self.why}")
        return self.record


def read_hosts(client: Client, keyring: Keyring | None) -> list[HostStatus]:
    """Return all hosts that were ever seen in the last 30 days, by name; two round trips."""
    known = client.call("ZRANGE", client.names.hosts, 0, -1, "WITHSCORES")
    seen = {name.decode(errors="replace"): float(at) for name, at in zip(known[::2], known[1::2], strict=True)}
    return _statuses(client, seen, keyring)


def read_host(client: Client, name: str, keyring: Keyring | None) -> HostStatus:
    """Return one; one that was never seen is answered with those that were."""
    at = client.call("ZSCORE", client.names.hosts, name)
    if at is not None:
        return _statuses(client, {name: float(at)}, keyring)[0]
    known = [one.decode(errors="replace") for one in client.call("ZRANGE", client.names.hosts, 0, -1)]
    there = f"; there are {', '.join(known)}" if known else ""
    why = f"no host of that name was ever seen in this Redis ({client.address.shown}){did_you_mean(name, known)}{there}"
    start = f"on that machine, with CELERYPIPE_REDIS_URL as here: celerypipe host --name {name}"
    cure = wrong_host(name) or start
    return HostStatus(name, "never seen", why=f"{why}; {cure}")


def _statuses(client: Client, seen: dict[str, float], keyring: Keyring | None) -> list[HostStatus]:
    names = sorted(seen)
    if not names:
        return []
    records = {
        name: host_in(text)
        for name, text in zip(names, client.call("MGET", *map(client.names.host, names)), strict=True)
    }
    processes = {name: Process.read(record.place) for name, record in records.items() if record is not None}
    asked = [client.names.heartbeat(process.host, process.life) for process in processes.values()]
    *beats, clock = client.together(*(("GET", key) for key in asked), ("TIME",))
    now = int(clock[0]) + int(clock[1]) / 1e6
    heard = dict(zip(processes, beats, strict=True))
    return [_status(name, records[name], heard.get(name), now - seen[name] / 1000, now, keyring) for name in names]


def _status(
    name: str, record: HostRecord | None, beat: bytes | None, silent: float, now: float, keyring: Keyring | None
) -> HostStatus:
    silent = max(0.0, silent)
    again = f"celerypipe host --name {name}"
    if record is None:
        why = f"what it says of itself is not there any more, or a stranger wrote it; start it again: {again}"
        return HostStatus(name, "gone", silent, why)
    process = Process.read(record.place)
    if not is_named(process, beat):
        ended = beat == OVER.encode()
        how = (
            "its process ended"
            if ended
            else "nothing was heard from it: its machine or the network is down, or it was killed"
        )
        why = f"{how}; see its log on {record.hostname} (process {process.pid}), then there: {again}"
        return HostStatus(name, "gone", silent, why, record, over=ended)
    if why := unlike(Spoken(*record.protocol), record.hostname) or strangers(keyring, record.keys):
        return HostStatus(name, "refused", None, why.replace("restart the worker", "restart the host"), record)
    return HostStatus(name, "up", max(0.0, now - (record.started - record.clock)), "", record)
