"""Some workers on another machine, started together: watched, restarted, scaled, stopped, and asked to hold nodes."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from celerypipe.errors import ConfigError, HostError
from celerypipe.host.asking import RequestKind
from celerypipe.host.group import PATIENCE, GroupClient, NodeHandle
from celerypipe.host.records import HostRecord, WorkerSet, WorkerState
from celerypipe.message.logs import LogLine
from celerypipe.redis.connection import explained

if TYPE_CHECKING:
    from celerypipe.host.manager import Manager

#: Seconds between two looks at what a host says.
LOOK = 0.1
#: Seconds that workers have to come up, and to end, where nobody says how long.
UP_SECONDS, END_SECONDS = 120.0, 15.0


class HostedWorkers:
    """Some workers of one queue on one host, started together."""

    def __init__(self, manager: Manager, host: str, wanted: WorkerSet) -> None:
        self._manager = manager
        self.host = host
        self.queue = wanted.queue
        self.id = wanted.id
        self._set = wanted

    def __repr__(self) -> str:
        return f"workers {self.id} (queue {self.queue} on {self.host})"

    def status(self) -> list[WorkerState]:
        """Return each of them; :class:`HostError` if its host is gone."""
        return self.members(self._manager.host_status(self.host).require_up())

    def members(self, record: HostRecord | None) -> list[WorkerState]:
        """Return those of them that a host tells of."""
        return [each for each in record.workers if each.set == self.id] if record is not None else []

    def wanted(self, record: HostRecord | None, *, draining: bool = False) -> WorkerSet | None:
        """Return the set as it is wanted now; None: not any more. ``draining``: one that drains counts."""
        ways = ("", "drain") if draining else ("",)
        found = [each for each in record.sets if each.id == self.id and each.ending in ways] if record else []
        return found[0] if found else None

    def pids(self) -> str:
        """Return their processes, for people."""
        return ", ".join(str(each.pid) for each in self.status() if each.pid) or "none"

    def wait(self, timeout: float = UP_SECONDS) -> None:
        """Wait until as many are up as are wanted then; :class:`HostError` says what keeps them from it."""
        until = time.monotonic() + timeout
        while True:
            record = self._manager.host_status(self.host).require_up()
            wanted, there = self.wanted(record), self.members(record)
            now = self._manager.wanted(self.host).get(self.id)
            if wanted is None and (now is None or now.ending):
                raise HostError(f"{self}: somebody else stopped them meanwhile")
            if wanted is not None and wanted == now:  # the host has heard what was asked of it
                if failed := [each for each in there if each.state == "failed"]:
                    raise HostError(f"{self}: {failed[0].why}; it was given up. Its log ends with:\n{self._last_log()}")
                if [each.state for each in there] == ["up"] * wanted.count:
                    return
            if time.monotonic() > until:
                raise HostError(f"{self}: {_what_is_missing(there, timeout)}\n{self._last_log()}".rstrip())
            time.sleep(LOOK)

    def stop(self, *, drain: bool = True, wait: bool = True, timeout: float | None = None) -> None:
        """Stop them, and wait until they have ended; without ``wait``, :meth:`join` does that.

        ``drain``: each first finishes the messages that it has in hand, however long that takes; else they are handed
        back, and other workers get them. ``timeout``: seconds after which :class:`HostError` says which have not
        ended; they go on ending.
        """
        self._ask("stop", self.ending("drain" if drain else "now"))
        if wait:
            self.join(timeout if timeout is not None or drain else END_SECONDS)

    def join(self, timeout: float | None = None) -> None:
        """Wait until all of them have ended that were told to; :class:`HostError` says which have not in time."""
        until = time.monotonic() + (timeout if timeout is not None else float("inf"))
        while there := self.status():
            if time.monotonic() > until:
                states = ", ".join(f"process {each.pid} is {each.state}" for each in there)
                raise HostError(f"{self}: not ended within {timeout:g} s: {states}")
            time.sleep(LOOK)

    def restart(self, *, wait: bool = True, timeout: float = UP_SECONDS) -> None:
        """Let each finish what it has in hand, and start it anew; those that were given up, too."""
        self._set = replace(self._set, generation=self._set.generation + 1)
        self._ask("restart", self._set)
        if wait:
            self.wait(timeout)

    def scale(self, count: int, *, wait: bool = True, timeout: float = UP_SECONDS) -> None:
        """Have so many of them; those that go finish what they have in hand."""
        wanted = replace(self._set, count=count)
        self._ask("scale", wanted)
        self._set = wanted
        if wait:
            self.wait(timeout)

    def logs(self, *, follow: bool = False) -> Iterator[LogLine]:
        """Yield what they log and print, for runs too; ``follow``: go on with what comes."""
        return self._manager.lines([each.place for each in self.status() if each.place], follow=follow)

    def create_node(self, mark: str, *, name: str = "", timeout: float = PATIENCE, **configuration: Any) -> NodeHandle:
        """Make a node in this worker, and warm it up, without a restart; ``name``: else one after its mark.

        The class comes from the modules of the queue's worker config. For one worker of one process, a node group:
        ``host.start(queue, count=1, pool="solo")``; :class:`HostError` for others.
        """
        group = self._group()
        chosen = name or f"{mark.rpartition('.')[2]}-{secrets.token_hex(2)}"
        group.ask("create", node=chosen, mark=mark, configuration=as_json(mark, configuration), patience=timeout)
        return NodeHandle(group, chosen)

    def remove_node(self, node: NodeHandle) -> None:
        """Let go of a node; one that is running has to be stopped first."""
        self._group().ask("remove", node=node.name)

    def nodes(self) -> list[NodeHandle]:
        """Return the nodes of this group."""
        group = self._group()
        return [NodeHandle(group, each.name) for each in group.ask("list").nodes]

    def _group(self) -> GroupClient:
        if self._set.pool != "solo" or self._set.count != 1:
            raise HostError(
                f"{self} are no node group, which is one worker with one process: "
                f'host.start("{self.queue}", count=1, pool="solo")'
            )
        return GroupClient(self._manager.client, self._manager.keyring, self.id, repr(self), self._require_life)

    def _require_life(self) -> None:
        states = self.status()
        if not states:
            raise HostError(f"{self} were stopped")
        if states[0].state != "up":
            raise HostError(f"{self}: its worker is {states[0].state}" + f" ({states[0].why})" * bool(states[0].why))

    def ending(self, how: Literal["drain", "now"]) -> WorkerSet:
        """Return the set as it is to end."""
        return replace(self._set, ending=how)

    def abandon(self) -> None:
        """Stop them without waiting, as they did not come up."""
        if self._manager.host_status(self.host).state == "up":
            self._manager.asked.all([(self.host, "stop", self.ending("now"))])

    def _ask(self, kind: RequestKind, wanted: WorkerSet) -> None:
        self._manager.host_status(self.host).require_up()
        with explained(self._manager.address):
            self._manager.asked.one(self.host, kind, wanted)

    def _last_log(self) -> str:
        ends = [end for end in self._manager.ends() if end.host == self.host and end.queue == self.queue]
        return next((end.log for end in ends if end.log), "")


def as_json(mark: str, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a node, if it can travel."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(configuration), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"preload: {mark}: its configuration cannot be sent as JSON: {error}") from None
    return found


def _what_is_missing(there: Sequence[WorkerState], timeout: float) -> str:
    states = ", ".join(f"{each.number} is {each.state}" + (f" ({each.why})" if each.why else "") for each in there)
    return f"not up within {timeout:g} s: {states or 'its host has not begun'}"
