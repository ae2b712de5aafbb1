"""What a look before a run finds: a finding, and what the checks look at. Both are values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from celerypipe.definition.pipeline import Pipeline
from celerypipe.mailbox.presence import Presence, stranger
from celerypipe.redis.address import Address
from celerypipe.redis.signing import Keyring

#: ``error``: the run would fail or never end; ``warning``: it may run worse than its author thinks; ``note``: good to
#: know.
Severity = Literal["error", "warning", "note"]

#: Bytes of messages that a run may have on their way to workers and back at one time, unless its runner says otherwise.
BYTE_BUDGET = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: how bad it is, which check found it and where, a sentence, the command that mends it.

    ``check`` is a word for programs, such as ``eviction``; ``place`` one for people, such as ``Redis``.
    """

    severity: Severity
    check: str
    place: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        cure = f"; to fix it: {self.mend}" if self.mend else ""
        return f"{self.place}: {self.text}{cure}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What all checks look at.

    ``server``: what Redis says of itself (INFO), empty if it may not be asked. ``workers``: presences, at least those
    of the run's queues. ``latency``: seconds of a round trip. ``offset``: Redis' clock less ours, in seconds.
    ``budget``: bytes that the run may have on their way at one time. ``declared``: node → version of its class here,
    for nodes whose class is here; ``codes``: node → its code by its source here, as far as that is known.
    ``elsewhere``: queue without a worker → namespaces in which there are some; ``unbuilt``: → why the last one could
    not start. ``keyring``: what the run signs with.
    """

    pipeline: Pipeline
    address: Address
    server: Mapping[str, Any]
    workers: tuple[Presence, ...]
    latency: float
    offset: float
    budget: int
    declared: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unbuilt: Mapping[str, str] = field(default_factory=dict)
    keyring: Keyring | None = None

    def workers_of(self, queue: str) -> list[Presence]:
        """Return the live workers of a queue."""
        return [worker for worker in self.workers if queue in worker["queues"]]

    def concerns(self, worker: Presence) -> bool:
        """Does this worker serve a queue of the run?"""
        return any(node.queue in worker["queues"] for node in self.pipeline.warped)

    def stranger(self, worker: Presence) -> str:
        """Say why the run and this worker do not understand each other; nothing if they do."""
        return stranger(worker, self.keyring)

    @property
    def redis_cli(self) -> str:
        """The command line that reaches this Redis, without its password."""
        address = self.address
        if address.host:
            return f"redis-cli -u {address}"
        if not address.path:  # redis-cli knows nothing of Sentinels
            return "redis-cli"
        return f"redis-cli -s {shlex.quote(address.path)}" + (f" -n {address.database}" if address.database else "")
