"""``celerypipe host``: the process that stays up on a machine, and keeps the workers there that are wanted."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import celery

from celerypipe.errors import ConfigError
from celerypipe.heartbeat.heartbeat import Heartbeat
from celerypipe.host.allowed import QUEUE, Allowed
from celerypipe.host.autoscale import QueueLoad, Scaler
from celerypipe.host.crew import Crew, EndedWorker, Member
from celerypipe.host.devices import devices_by_queue
from celerypipe.host.launch import Launch
from celerypipe.host.link import Heard, HostLink
from celerypipe.host.machine import Gpus, machine_now
from celerypipe.host.reception import HostReception, permitted
from celerypipe.host.records import AUTO, HostRecord, WorkerSet
from celerypipe.host.restarts import Restarts
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.liveness import words
from celerypipe.process.version import VERSION
from celerypipe.redis.address import Address
from celerypipe.redis.connection import knock
from celerypipe.settings import Settings

logger = logging.getLogger("celerypipe.host")

#: Seconds between two looks at the workers, and after which what was heard is too old to start anything by it.
LOOK, STALE = 0.05, 3.0
#: Seconds between two looks at the machine.
MEASURE = 1.0
#: Seconds that Redis has to hear the last words.
FAREWELL = 3.0


@dataclass(frozen=True)
class HostSettings:
    """A host as it was asked for. ``folder``: where it keeps the logs of its workers."""

    name: str
    address: Address
    allowed: Allowed
    folder: Path
    settings: Settings


class HostLoop:
    """A host, in the main thread of its process: Celery and Redis have threads of their own and hold it up never."""

    def __init__(self, told: HostSettings, *, orphans: Callable[[set[int]], None] | None = None) -> None:
        """``orphans`` is called again and again with the processes of the workers: all others of ours are nobody's."""
        self._told = told
        self._orphans = orphans
        self._process = Process(socket.gethostname(), os.getpid(), secrets.token_hex(4))
        names = told.address.names
        stands = names.host(told.name)
        self._heartbeat = Heartbeat(told.address, words(names, self._process, stands=stands))
        keyring = told.settings.keyring
        self._scalers = {queue: Scaler(rule.autoscale) for queue, rule in told.allowed.queues.items() if rule.autoscale}
        self._link = HostLink(told.address, told.name, str(self._process), keyring, [*self._scalers])
        self._reception = HostReception(told.address, told.name, told.allowed, keyring, self._link.nudge)
        launch = Launch(
            told.name, told.folder, {**told.allowed.environment(), "CELERYPIPE_REDIS_URL": told.address.url}
        )
        self._launch = launch
        self._gpus = Gpus()
        self._machine = machine_now(self._gpus)
        devices = devices_by_queue(told.allowed, self._gpus.count, os.environ)
        self._crew = Crew(launch, lambda queue: Restarts(told.allowed.policy(queue)), devices)
        self._measured = time.monotonic()
        self._generations: dict[str, int] = {}
        self._forgotten: set[str] = set()
        self._beyond: set[str] = set()
        self._ending = 0
        self._before: object = None

    def run(self) -> int:
        """Work until told to end; return the exit status."""
        told = self._told
        lock = _only_one(told)
        if absence := knock(told.address, "--redis"):
            logger.warning("%s; this host waits for it", absence)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._tell_to_end)
        self._launch.clear_up()
        self._heartbeat.start()
        self._adopt()
        self._say_what_is_there(self._link.heard)
        self._reception.start()
        logger.info(
            "host %s: %s; may start %s; asked on queue %s%s",
            told.name,
            told.address,
            ", ".join(f"{queue} ({most})" for queue, most in told.allowed.startable.items()),
            QUEUE,
            told.name,
        )
        try:
            status = self._go_on()
        finally:
            self._close()
            lock.close()
        return status

    def _go_on(self) -> int:
        while not self._ending:
            if self._reception.is_ready:  # from then on it is up, and can be asked
                self._link.start()
            heard = self._link.heard
            if heard.taken:
                where = Process.read(heard.taken)
                logger.error(
                    "another host is called %s, on %s: this one ends; start it with another --name",
                    self._told.name,
                    where.where,
                )
                return os.EX_CONFIG
            if self._reception.is_over:
                if self._reception.error is not None:
                    logger.error("Celery's worker failed, and so this host ends", exc_info=self._reception.error)
                    return os.EX_SOFTWARE
                logger.info("told to end, by a Celery command")
                return os.EX_OK
            self._keep(heard)
            time.sleep(LOOK)
        return os.EX_OK

    def _keep(self, heard: Heard) -> None:
        fresh = time.monotonic() - heard.at < STALE
        crew = self._crew
        sets = self._permitted(heard) if fresh else {}
        if fresh:
            for each in sets.values():
                if self._generations.setdefault(each.id, each.generation) != each.generation:
                    self._generations[each.id] = each.generation
                    crew.retry(each.id)
            self._generations = {each: self._generations[each] for each in sets}
            crew.want({**sets, **self._scaled(heard)}, heard.held)
            crew.seen(heard.present)
        ended = crew.look(may_start=fresh)
        for one in ended:
            _say_end(one)
        self._link.tell(ended)
        self._link.starting = crew.starting
        over = {each.id for each in heard.sets.values() if each.ending and not crew.left(each.id)} if fresh else set()
        self._link.forget(sorted(over - self._forgotten))
        self._forgotten = over
        if self._orphans is not None:
            self._orphans(crew.pids | {self._heartbeat.pid})
        self._say_what_is_there(heard)

    def _permitted(self, heard: Heard) -> dict[str, WorkerSet]:
        """Return the sets that are wanted and that the list of this host allows."""
        fine, beyond = permitted(heard.sets, self._told.allowed)
        for one in beyond:
            if one.id not in self._beyond:
                text = "queue %s: %d workers (%s) are wanted, and are more than %s allows: they do not start"
                logger.warning(text, one.queue, one.count, one.id, self._told.allowed.path)
        self._beyond = {one.id for one in beyond}
        return fine

    def _scaled(self, heard: Heard) -> dict[str, WorkerSet]:
        """Return the sets of the queues whose number of workers follows what there is to do."""
        sets = {}
        for queue, scaler in self._scalers.items():
            load = heard.loads.get(queue, QueueLoad())
            before = scaler.count
            own = [
                member for member in self._crew.members if member.set.id == f"{AUTO}{queue}" and member.state == "up"
            ]
            slots = (load.slots - load.elsewhere) // len(own) if own else 1
            count = scaler.want(load, slots, time.monotonic())
            if count != before:
                work = f"{load.waiting} messages wait, {load.in_hand} are in hand, the oldest for {load.oldest:.1f} s"
                logger.info("queue %s: %d workers in place of %d; %s", queue, count, before, work)
            sets[f"{AUTO}{queue}"] = WorkerSet(queue=queue, count=count, id=f"{AUTO}{queue}")
        return sets

    def _adopt(self) -> None:
        """Workers that outlived a host of this name are its own again."""
        for kept, child in self._launch.found():
            restarts = Restarts(self._told.allowed.policy(kept.set.queue))
            member = Member(kept.set, kept.number, restarts, kept.device, child=child)
            member.become("starting")
            self._crew.members.append(member)
            logger.info("worker of queue %s, process %d, is here again", kept.set.queue, kept.pid)

    def _say_what_is_there(self, heard: Heard) -> None:
        """Say it; ``heard``: what the workers are there by, so that both fit together."""
        if time.monotonic() - self._measured > MEASURE:
            self._measured = time.monotonic()
            self._machine = machine_now(self._gpus)
        told = self._told
        workers = [member.told(heard.held) for member in self._crew.members]
        now = [(each.set, each.number, each.state, each.pid, each.place) for each in workers], heard.version
        self._link.record = HostRecord(
            name=told.name,
            place=str(self._process),
            hostname=socket.gethostname(),
            machine=self._machine,
            queues=told.allowed.startable,
            keys=told.settings.keyring.ids if told.settings.keyring is not None else [],
            versions={
                "celerypipe": VERSION,
                "celery": celery.__version__,
                "python": ".".join(map(str, sys.version_info[:3])),
            },
            version=heard.version,
            sets=list(heard.sets.values()),
            workers=workers,
            autoscale=sorted(self._scalers),
        )
        if now != self._before:
            self._before = now
            self._link.nudge()

    def _tell_to_end(self, number: int, _frame: FrameType | None) -> None:
        self._ending += 1
        if self._ending > 2:  # who asks a third time does not want to wait
            os._exit(128 + number)

    def _close(self) -> None:
        logger.info("ending the workers")
        self._reception.close()
        if left := self._crew.end():
            logger.error("these processes would not end: %s", ", ".join(map(str, left)))
        self._say_what_is_there(self._link.heard)
        self._link.close(FAREWELL)
        self._heartbeat.end(last=True)


def _only_one(told: HostSettings) -> IO[str]:
    """Hold the lock of the folder; :class:`ConfigError`: another host of this name does, on this machine."""
    try:
        told.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (told.folder / "lock").open("a+")
    except OSError as error:
        raise ConfigError(f"{told.folder}: cannot be used: {error.strerror}; give another one with --state") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(
            f"a host called {told.name} runs on this machine already; stop it, or give this one another --name"
        ) from None
    return lock


def _say_end(ended: EndedWorker) -> None:
    level = logging.INFO if ended.asked else logging.ERROR
    log = f"; its log ends with:\n{ended.log}" if ended.log else ""
    how = "ended as it was told to" if ended.asked else f"ended: {ended.death}"
    logger.log(level, "worker of queue %s, process %d, %s; %s%s", ended.queue, ended.pid, how, ended.next, log)
