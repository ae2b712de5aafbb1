"""The workers of one host: started as they are wanted, watched, started again, ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from celerypipe.host.devices import least_taken
from celerypipe.host.launch import Launch, WorkerProcess
from celerypipe.host.records import WorkerPhase, WorkerSet, WorkerState
from celerypipe.host.restarts import Restarts
from celerypipe.mailbox.deaths import Death, OutOfMemory
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.status import InHand

#: Seconds that a worker that is to end at once has for it: what it has in hand is handed back, others get it.
GRACE = 5.0
#: Seconds that one has to come up before it counts as one that does not.
BOOT_SECONDS = 300.0


@dataclass
class Member:
    """One worker: a place in a set, whoever fills it. ``device``: the GPU that it sees, also when it starts again."""

    set: WorkerSet
    number: int
    restarts: Restarts
    device: str = ""
    state: WorkerPhase = "waiting"
    child: WorkerProcess | None = None
    place: str = ""
    #: When it came into this state, and when it may start.
    since: float = field(default_factory=time.monotonic)
    not_before: float = 0.0
    #: When it is killed, once it was told to end.
    killed_at: float | None = None
    leaves: bool = False
    starts: int = 0
    why: str = ""

    @property
    def life(self) -> str:
        """What tells it from all others that ever were; empty until it is up."""
        return Process.read(self.place).life if self.place else ""

    def become(self, state: WorkerPhase) -> None:
        """Change its state."""
        if state != self.state:
            self.state, self.since = state, time.monotonic()

    def told(self, held: Mapping[str, Sequence[InHand]]) -> WorkerState:
        """Return what is told of it; ``held``: what workers have in hand, by their life."""
        polled, message = self.child.activity.ago() if self.child is not None else (None, None)
        return WorkerState(
            set=self.set.id,
            number=self.number,
            queue=self.set.queue,
            state=self.state,
            pid=self.child.pid if self.child is not None else 0,
            place=self.place,
            since=round(time.monotonic() - self.since, 1),
            starts=self.starts,
            why=self.why,
            held=list(held.get(self.life, ())),
            polled=polled,
            message=message,
            device=self.device,
        )


@dataclass(frozen=True, slots=True)
class EndedWorker:
    """A worker that ended just now; ``log``: its last lines, ``next``: what is done about it."""

    queue: str
    place: str
    pid: int
    death: Death
    asked: bool
    next: str
    log: str


class Crew:
    """Makes the workers of this host those that are wanted, a step each time it is asked to look."""

    def __init__(
        self, launch: Launch, restarts: Callable[[str], Restarts], devices: Mapping[str, Sequence[str]]
    ) -> None:
        """``restarts``: how the workers of a queue are started again; ``devices``: the GPUs for those of a queue."""
        self._launch = launch
        self._devices = devices
        self._restarts = restarts
        self._memory = OutOfMemory()
        self.members: list[Member] = []

    def want(self, sets: Mapping[str, WorkerSet], busy: Collection[str] = ()) -> None:
        """These sets are wanted now; ``busy``: the lives of workers that have a message in hand, which go last."""
        for member in self.members:
            wanted = sets.get(member.set.id)
            if wanted is None:
                self._leave(member, "now")
            elif wanted.ending:
                self._leave(member, wanted.ending)
            else:
                if wanted.generation != member.set.generation and member.child is not None:
                    self._tell(member, "drain")
                member.set = wanted
        for one in sets.values():
            if not one.ending:
                self._count(one, busy)

    def _count(self, wanted: WorkerSet, busy: Collection[str]) -> None:
        staying = [each for each in self.members if each.set.id == wanted.id and not each.leaves]
        spare = len(staying) - wanted.count
        if spare > 0:  # those that do nothing, then the youngest
            for member in sorted(staying, key=lambda each: (each.life in busy, -each.number))[:spare]:
                self._leave(member, "drain")
        taken = {each.number for each in self.members if each.set.id == wanted.id}
        free = (number for number in range(len(taken) + wanted.count) if number not in taken)
        for _ in range(-spare):
            device = least_taken(self._devices.get(wanted.queue, ()), [each.device for each in self.members])
            self.members.append(Member(wanted, next(free), self._restarts(wanted.queue), device))

    def _leave(self, member: Member, how: str) -> None:
        """It is not wanted any more."""
        if member.child is None:
            member.leaves = True
            member.become("ended")
        elif not member.leaves or (how == "now" and member.killed_at is None):
            member.leaves = True
            self._tell(member, how)

    def _tell(self, member: Member, how: str) -> None:
        """Tell it to end: once it is through with what it is at, or handing that back."""
        if member.child is not None and (member.state != "stopping" or how == "now"):
            member.child.send(signal.SIGTERM if how == "drain" else signal.SIGQUIT)
            member.killed_at = None if how == "drain" else time.monotonic() + GRACE
            member.become("stopping")

    def look(self, *, may_start: bool) -> list[EndedWorker]:
        """See who ended, start who may; ``may_start``: what is wanted was heard a moment ago."""
        now = time.monotonic()
        ended = [self._bury(member, status) for member in self.members if (status := self._status(member)) is not None]
        self.members = [member for member in self.members if member.state != "ended"]
        for member in self.members:
            if member.child is None:
                if may_start and member.state == "waiting" and now >= member.not_before:
                    self._start(member)
            elif member.killed_at is not None and now >= member.killed_at:
                member.child.kill()
                member.killed_at = now + GRACE
            elif member.state == "starting" and now - member.since > BOOT_SECONDS:
                member.why = f"it was not up after {BOOT_SECONDS:.0f} s"
                member.child.kill()
        return ended

    def _start(self, member: Member) -> None:
        try:
            member.child = self._launch.start(member.set, member.number, member.device)
        except OSError as error:  # no memory, or no room for a process
            member.why = f"cannot start it: {error}"
            self._plan(member)
            return
        member.starts += 1
        member.killed_at, member.place = None, ""
        member.become("starting")

    def _status(self, member: Member) -> int | None:
        return member.child.status() if member.child is not None else None

    def _bury(self, member: Member, status: int) -> EndedWorker:
        """It ended: say how, and plan what comes of it."""
        child, told = member.child, member.state == "stopping"
        assert child is not None  # noqa: S101  # it has a status
        death = Death(status, member.place, self._memory.happened(), told=told)
        log = "" if told else child.tail()
        member.child, member.killed_at = None, None
        if told or status == os.EX_OK:
            member.why = member.why if told else "it was told to end, by somebody else than this host"
        else:
            member.why = str(death)
        if member.leaves:
            member.become("ended")
            following = "it is not wanted any more"
        elif told:
            member.become("waiting")
            following = "it starts again, as it was told to"
        else:
            following = self._plan(member, status)
        return EndedWorker(member.set.queue, member.place, child.pid, death, told, following, log)

    def _plan(self, member: Member, status: int | None = None) -> str:
        """Decide when it starts again; return that in words."""
        now = time.monotonic()
        if status == os.EX_CONFIG:
            member.become("failed")
            return "given up: what is wrong with its configuration stays wrong; see its log"
        at = member.restarts.after_death(now)
        if at is None:
            policy = member.restarts.policy
            member.become("failed")
            return (
                f"given up: it was started again {policy.attempts} times within {policy.interval:g} s; mend the cause, "
                "then restart it: celerypipe worker restart"
            )
        member.not_before = at
        member.become("waiting")
        return f"it starts again in {at - now:.1f} s"

    def seen(self, present: Mapping[int, str]) -> bool:
        """These workers of this machine are up, by process: what each is called. True: one of ours is among them."""
        new = False
        for member in self.members:
            if member.state == "starting" and member.child is not None and member.child.pid in present:
                member.place = present[member.child.pid]
                member.become("up")
                new = True
        return new

    @property
    def pids(self) -> set[int]:
        """The processes of its workers."""
        return {member.child.pid for member in self.members if member.child is not None}

    @property
    def starting(self) -> bool:
        """Is one of them on its way?"""
        return any(member.state == "starting" for member in self.members)

    def left(self, set_id: str) -> bool:
        """Is there still a worker of this set?"""
        return any(member.set.id == set_id for member in self.members)

    def retry(self, set_id: str) -> None:
        """Those of a set that were given up get another chance, those that wait for one get it now."""
        for member in self.members:
            if member.set.id == set_id and member.state in ("failed", "waiting"):
                member.restarts = self._restarts(member.set.queue)
                member.not_before = 0.0
                member.become("waiting")

    def end(self, patience: float = GRACE) -> list[int]:
        """End all of them but the detached ones; return the processes that would not go."""
        mine = [member for member in self.members if member.child is not None and not member.set.detached]
        for member in mine:
            self._leave(member, "now")
        until = time.monotonic() + patience
        while any(member.child is not None for member in mine) and time.monotonic() < until + GRACE:
            if time.monotonic() > until:
                for member in mine:
                    if member.child is not None:
                        member.child.kill()
            for member in mine:
                if self._status(member) is not None:
                    member.child = None
            time.sleep(0.02)
        self.members = [member for member in self.members if member.child is not None]
        return [member.child.pid for member in mine if member.child is not None]
