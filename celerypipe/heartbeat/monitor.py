"""The process that gives the heartbeat: it watches a worker or a runner, and tells Redis whether it lives.

It is a script (``python -I -S``), started by exec, so that it shares no interpreter lock with what it watches. It needs
the standard library only, and of that little: bare sockets, and ssl only where Redis wants it. What it knows comes
through its standard input, so that no secret is seen in ``ps``: a plan, then a line for each process besides the one
that started it, ``+<pid>``, and what stands in Redis meanwhile: ``=<size> <revision>`` and commands of that size. It
ends with the process that started it, or when it is told to: ``end``, or ``leave``, as if that had ended.

What stands is said when it is told, each minute, on each new line, and when a beat is answered with 0: it is gone. In
its commands None stands for the time here. Its revision is said with each beat, behind the processes: ``=<revision>``.

The plan, as marshal writes it, behind four bytes with its length: ``boss``, that process; ``endpoint``, where Redis is
(:mod:`celerypipe.redis.endpoint`); and commands: ``beat``, sent each second, in which None stands for the processes
that live; ``full``, sent instead when Redis' memory is full; ``last``, for the end of the boss; ``descendants``: what
comes of the boss is ended with it, in its "session" or "all"; ``deadlines``, an open file that says by when processes
have to let go of their interpreter lock; and ``lines``, what is logged there and where it is to go
(:mod:`celerypipe.heartbeat.shipper`).

A process that is stopped (SIGSTOP, a debugger) does not count as living, since nobody can tell when it goes on. With
the boss all others are ended that it started, and with each process its group, if it leads one.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # of its package it has what stands in this folder; the rest would load for long
    package = sys.modules["celerypipe"] = type(sys)("celerypipe")
    package.__path__ = [os.path.dirname(os.path.dirname(__file__))]

import _signal  # type: ignore[import-not-found]  # what signal is made of; that costs 1 MB and several ms
import marshal
import select
import time

from celerypipe.heartbeat.deadlines import Deadlines
from celerypipe.heartbeat.descendants import Descendants
from celerypipe.heartbeat.shipper import Shipper
from celerypipe.heartbeat.watched import Watched
from celerypipe.heartbeat.wire import RETRY, ErrorReply, Wire, packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Seconds between two beats.
BEAT = 1.0
#: Seconds between two times that it says what stands in Redis.
STANDS = 60.0
#: Seconds without a beat that arrived after which that is said.
UNHEARD = 10.0
#: Seconds for the other processes to end.
FAREWELL = 1.0


class Monitor:
    """Watches, and beats."""

    def __init__(self, plan: dict[str, Any], told: int) -> None:
        """``told``: the file that says which other processes there are."""
        self._plan = plan
        self._wire = Wire(plan["endpoint"])
        self.boss = Watched(plan["boss"])
        self.others: dict[int, Watched] = {}
        self._told = told
        self._rest = b""
        self._next = 0.0
        self._standing: list[list[bytes | None]] = []
        self._revision = b""
        self._stands_until = 0.0
        self._full = False
        self._said: set[str] = set()
        self._heard = time.monotonic()
        self._descendants: Descendants | None = None
        self._deadlines = Deadlines(plan["deadlines"]) if plan["deadlines"] >= 0 else None
        self._shipper = Shipper(plan["lines"]) if plan["lines"] else None
        #: Who has missed its deadline: when Python ran there last, and since when that is known.
        self._late: dict[int, tuple[float, float]] = {}

    def run(self) -> None:
        """Beat until the boss is gone, or says that this is to end."""
        os.set_blocking(self._told, False)
        last = self._plan["last"]
        while not self.boss.gone:
            match self._wait(self._patience()):
                case b"end":
                    return
                case b"leave":
                    last = [*self._plan["left"], *last]
                    break
            if time.monotonic() >= self._next:
                self._beat()
                self._look()
            self._ship()
        self._farewell(last)

    def _patience(self) -> float:
        """Seconds until something is to be said."""
        now = time.monotonic()
        beat = max(0.0, self._next - now)
        return beat if self._shipper is None or self._wire.owed else min(beat, self._shipper.wait(now))

    def _ship(self) -> None:
        """Send what was logged, if it is time, and Redis has answered to all before."""
        if self._shipper is not None and not self._wire.owed and self._shipper.is_due(time.monotonic()):
            commands = self._shipper.commands()
            try:
                self._wire.send(packed(commands), len(commands))
            except OSError as error:
                self._broken(error)

    def _wait(self, seconds: float) -> bytes:
        """Wait until something happens; return how this is to end, if it is."""
        poll = select.poll()
        watched = {each.fd: each for each in (self.boss, *self.others.values()) if each.fd >= 0}
        wire = self._wire.socket.fileno() if self._wire.socket is not None else -1
        lines = self._shipper.fd if self._shipper is not None else -1
        for fd in (*watched, wire, self._told, lines):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(1000 * seconds):
            if fd in watched:
                self._ended(watched[fd])
            elif fd == wire:
                self._receive()
            elif fd == lines and self._shipper is not None:
                self._shipper.read()
            elif said := self._listen():
                return said
        return b""

    def _ended(self, one: Watched) -> None:
        one.close()
        self.others.pop(one.pid, None)

    def _listen(self) -> bytes:
        """Hear of other processes; return how this is to end, if it is."""
        try:
            found = os.read(self._told, 65536)
        except BlockingIOError:
            return b""
        if not found:
            self._told = -1
        self._rest += found
        while b"\n" in self._rest:
            line, _, rest = self._rest.partition(b"\n")
            number, _, revision = line[1:].partition(b" ") if line.startswith(b"=") else (b"0", b"", b"")
            size = int(number)
            if len(rest) < size:
                break
            self._rest = rest[size:]
            if size:
                self._standing, self._stands_until = marshal.loads(rest[:size]), 0.0  # noqa: S302  # as the plan
                self._revision, self._next = b"=%b" % revision if revision else b"", 0.0
            elif line.startswith(b"+"):
                self._watch(int(line[1:]))
            else:
                return line
        return b""

    def _watch(self, pid: int) -> None:
        one = Watched(pid, self.boss.pid)
        if one.gone:
            one.close()
        else:
            self.others[one.pid] = one
            self._next = 0.0

    def _beat(self) -> None:
        self._next = time.monotonic() + BEAT
        running = [one.pid for one in (self.boss, *self.others.values()) if one.look()]
        for one in [one for one in self.others.values() if one.gone]:
            self._ended(one)
        self._hold_to_deadlines(running)
        beat, standing = self._plan["full" if self._full else "beat"], self._due()
        self._full = False
        if self.boss.gone or not (running or None in beat[0]):
            return
        living = b"".join(b" %d " % pid for pid in running) + self._revision
        said = packed(beat, living) + packed(standing, b"%.3f" % time.time())
        try:
            self._wire.send(said, len(beat) + len(standing))
        except OSError as error:
            self._broken(error)

    def _due(self) -> list[list[bytes | None]]:
        """What stands, if that is to be said now."""
        if self._full or time.monotonic() < self._stands_until:
            return []
        self._stands_until = time.monotonic() + STANDS
        return self._standing

    def _hold_to_deadlines(self, running: list[int]) -> None:
        """End who has missed its deadline for a while in which it ran; who was stopped until a moment ago may go on."""
        if self._deadlines is None:
            return
        before, now = self._late, time.monotonic()
        self._late = {}
        for pid in running:
            ran = self._deadlines.missed(pid, now)
            if ran is None:
                continue
            known, since = before.get(pid, (ran, now))
            self._late[pid] = (ran, since if known == ran else now)
            if now - self._late[pid][1] >= BEAT:
                sys.stderr.write(f"celerypipe: process {pid} is ended: it holds its interpreter lock, and is here:\n")
                (self.boss if pid == self.boss.pid else self.others[pid]).kill()

    def _look(self) -> None:
        """See what came of the boss, which is known of nobody once it is gone."""
        if self._plan["descendants"] and sys.platform == "linux":
            if self._descendants is None:
                self._descendants = Descendants(self.boss.pid, nothing_stays=self._plan["descendants"] == "all")
            self._descendants.look()

    def _receive(self) -> None:
        try:
            if b":0" in self._wire.receive():
                self._stands_until = 0.0
            if not self._wire.owed:
                self._heard = time.monotonic()
                self._said.discard("silence")
        except ErrorReply as refusal:
            self._refused(refusal)
        except OSError as error:
            self._broken(error)

    def _refused(self, refusal: ErrorReply) -> None:
        """Redis has no room (what is there can still live on), is no master any more, or lets us do nothing."""
        kind = refusal.kind
        if kind == "OOM":
            self._full, self._stands_until = True, 0.0
            self._next = min(self._next, time.monotonic() + RETRY)
            return
        if kind not in ("LOADING", "READONLY", "MASTERDOWN"):
            self._say(kind, f"Redis refuses the heartbeat of process {self.boss.pid}: {refusal}")
        self._broken(refusal)

    def _broken(self, error: OSError) -> None:
        """Try again, and say so once if that goes on: others take the boss for dead."""
        self._wire.close()
        self._next, self._stands_until = time.monotonic() + RETRY, 0.0
        if time.monotonic() - self._heard > UNHEARD:
            self._say("silence", f"no heartbeat of process {self.boss.pid} reaches Redis: {error}")

    def _say(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            sys.stderr.write(f"celerypipe: {text}\n")

    def _farewell(self, last: list[list[bytes | None]]) -> None:
        """The boss is gone: so are the processes that it started; then say so, in these words."""
        for one in self.others.values():
            one.end()
        if self._descendants is not None:
            self._descendants.end()
        until = time.monotonic() + FAREWELL
        while self.others and time.monotonic() < until:
            self._told = -1
            self._wait(0.05)
            for one in list(self.others.values()):
                one.look()
                if one.gone:
                    self._ended(one)
        for one in self.others.values():
            one.close()
        while self._shipper is not None and self._shipper.has_room and self._shipper.read():
            pass
        words = [*(self._shipper.commands() if self._shipper is not None else ()), *last]
        _ = self._say_last(words) or self._say_last(last)  # on a new line, if the old one broke

    def _say_last(self, last: list[list[bytes | None]]) -> bool:
        try:
            self._wire.send(packed(last), len(last))
            while self._wire.owed:
                self._wire.receive()
        except OSError:
            self._wire.close()
            return False
        return True


def exactly(size: int) -> bytes:
    """Read so many bytes from standard input."""
    found = b""
    while len(found) < size:
        more = os.read(0, size - len(found))
        if not more:
            raise SystemExit(0)  # who started this is gone
        found += more
    return found


def main() -> None:
    """Do what standard input says."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)  # it ends with its boss, which may still have things to do
    plan = marshal.loads(exactly(int.from_bytes(exactly(4), "big")))  # noqa: S302  # of whom it ends with
    Monitor(plan, 0).run()


if __name__ == "__main__":
    main()
