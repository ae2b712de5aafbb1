"""How a process that ran nodes died: said by who saw it end, read by whoever takes over its messages.

Only a parent learns how its child ended: the worker of a prefork child, or the supervisor of a whole worker. It leaves
a small key in Redis. A process with such a key is dead, so its bells are free at once and need not lapse
(:mod:`celerypipe.mailbox.scripts`), and the error of a message that killed it can name signal and worker.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import msgspec

from celerypipe.mailbox.holder import Holder, Process
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command, accepted
from celerypipe.redis.script import Script

#: Where Linux counts how often it ended a process for its memory, or for that of its control group.
OOM_COUNTER = Path("/proc/vmstat")

K = TypeVar("K")

# Count more. What is no number there, or no hash, is nobody's of ours: its error would come for ever. One that is too
# long begins anew: most of its messages have their answers, and one that kills is counted up again.
COUNT = Script("""
local count = redis.pcall('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
local wrong = type(count) == 'table' and string.match(count.err, '^%u+')  -- full, or no master: neither is of that kind
if wrong == 'ERR' or wrong == 'WRONGTYPE' then
  redis.call('DEL', KEYS[1])
  count = redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
elseif not wrong and redis.call('HLEN', KEYS[1]) > tonumber(ARGV[4]) then
  redis.call('DEL', KEYS[1])
  count = redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return count
""")


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a process. ``status``: its exit status, or minus the signal that killed it; None: nobody saw it.

    ``worker``: Celery's name of the worker that it belonged to; ``short``: the kernel ended processes for want of
    memory meanwhile; ``told``: it was told to end, or its worker was, so it is the fault of no message.
    """

    status: int | None
    worker: str = ""
    short: bool = False
    told: bool = False

    def __str__(self) -> str:
        if self.status is None:
            return "cause unknown (its whole worker died, or did not answer for seconds)"
        if self.status >= 0:
            return f"exit status {self.status}"
        try:
            name = signal.Signals(-self.status).name
        except ValueError:  # a real-time signal
            name = f"signal {-self.status}"
        memory = " for want of memory (the kernel's OOM killer)" if self.short and name == "SIGKILL" else ""
        return f"killed by {name}{memory}"


def saying_death(names: keys.Names, place: str, death: Death) -> Command:
    """Return the command that leaves word of the end of a process; ``place`` is what it is called.

    The first word stands: who told it to end knows more than who sees it end.
    """
    return "SET", names.death(place), json.dumps(asdict(death)), "NX", "PX", keys.DEATH_TTL


def say_death(client: Client, place: str, death: Death) -> None:
    """Leave word of the end of a process, see :func:`saying_death`."""
    client.call(*saying_death(client.names, place, death))


def death_of(client: Client, holder: str) -> Death | None:
    """Return how the process of an activation died, if somebody left word of that."""
    text = client.get(client.names.death(str(Holder.read(holder).process)))
    return (said_in(text, Death) or Death(None)) if text else None


def say_birth(client: Client, place: str) -> None:
    """A new process serves: forget one that had the same number."""
    client.delete(client.names.death(place))


def count_death(client: Client, attempts: str, number: str, *, by: int = 1) -> int:
    """Count that a process died with a message; return how many did. ``attempts``: a hash of its node."""
    return int(COUNT(client, (attempts,), number, by, keys.DATA_TTL, keys.ATTEMPTS_MOST))


def deaths_so_far(client: Client, attempts: str, number: str, holder: str, death: Death) -> list[tuple[str, Death]]:
    """Note that ``holder`` died with a message, and how; return all who did. ``attempts``: a hash of its node."""
    field = f"deaths {number}"
    before = said_in(client.hget(attempts, field), list[tuple[str, Death]]) or []
    said = [*before, (str(Holder.read(holder).process), death)]
    noting = ("HSET", attempts, field, msgspec.json.encode(said))
    accepted(client.together(noting, ("PEXPIRE", attempts, keys.DATA_TTL)))
    return said


def said_in(text: bytes | str | None, kind: type[K]) -> K | None:
    """Return what the text of a key says; None if it is not there, or nobody of ours wrote it."""
    try:
        return msgspec.json.decode(text or b"null", type=kind)
    except msgspec.DecodeError:
        return None


def as_text(deaths: Sequence[tuple[str, Death]]) -> str:
    """Say how processes died, those that died the same way together."""
    texts = []
    ends = [(death, Process.read(place)) for place, death in deaths]
    for (death, host), group in groupby(ends, lambda end: (end[0], end[1].host)):
        pids = ", ".join(str(process.pid) for _, process in group)
        of = f" of worker {death.worker}" if death.worker else f" on {host}"
        texts.append(f"{death} (process {pids}{of})")
    return "; ".join(texts)


class OutOfMemory:
    """Tells whether the kernel ended processes for their memory since it was asked last."""

    def __init__(self, counter: Path = OOM_COUNTER) -> None:
        self._counter = counter
        self._last = self._count()

    def happened(self) -> bool:
        """Compare the kernel's count with that of the last time."""
        before, self._last = self._last, self._count()
        return self._last > before

    def _count(self) -> int:
        """The kernel's count; 0 where it keeps none."""
        try:
            lines = self._counter.read_text().splitlines()
        except OSError:
            return 0
        counts = dict(line.split(" ", 1) for line in lines)
        return int(counts.get("oom_kill", 0))
