"""The manager: workers on all machines are started, watched and stopped from where you sit."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, get_args

from celerypipe.definition.names import with_environment, wrong_queue
from celerypipe.errors import CelerypipeError, ConfigError, HostError
from celerypipe.heartbeat.heartbeat import Heartbeat
from celerypipe.host.asking import HostClient, RequestKind
from celerypipe.host.hosted import END_SECONDS, LOOK, UP_SECONDS, HostedWorkers, as_json
from celerypipe.host.overview import HostStatus, read_host, read_hosts
from celerypipe.host.records import HostRecord, PoolName, WorkerEnd, WorkerSet, end_in, wanted_in
from celerypipe.host.watching import lines_of
from celerypipe.mailbox.holder import Process
from celerypipe.mailbox.liveness import words
from celerypipe.mailbox.status import RunNode, read_nodes
from celerypipe.message.logs import LogLine
from celerypipe.redis.connection import Client, connect, explained
from celerypipe.settings import RedisSettings, Settings

#: A node that is warm before the first message, and its configuration.
PreloadedNode = tuple[str, Mapping[str, Any]]


class Manager:
    """Starts, watches and stops workers on the hosts of one Redis. A context manager.

    ::

        with Manager() as manager:
            workers = manager.hosts["gpubox"].start("gpu")
            workers.status()

    What it started ends when the block does, or this process, however that ends; hosts stay. It is for one thread.
    """

    def __init__(self, redis: str | None = None) -> None:
        """``redis``: the address; else that of ``CELERYPIPE_REDIS_URL``. Nothing is asked before it is used."""
        self.address = RedisSettings.find(redis).or_default
        self.keyring = Settings.from_environment().keyring
        self._client = connect(self.address, name="celerypipe-manager", timeout=5.0)
        self._process = Process(socket.gethostname(), os.getpid(), secrets.token_hex(4))
        self._heartbeat: Heartbeat | None = None
        self._started: list[HostedWorkers] = []

    @property
    def client(self) -> Client:
        """Its connection to Redis."""
        return self._client

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The hosts that are up, by name; one that is not up is an error that says why."""
        return Hosts(self)

    def status(self) -> list[HostStatus]:
        """Return all hosts that were seen in the last 30 days, those that are gone too, with the reason."""
        with explained(self.address):
            return read_hosts(self._client, self.keyring)

    def ends(self, count: int = 20) -> list[WorkerEnd]:
        """Return the last ends of workers, the newest first: how each ended, its last lines, what it had in hand."""
        with explained(self.address):
            found = self._client.call("XREVRANGE", self._client.names.ends, "+", "-", "COUNT", count)
        return [end for _, fields in found if (end := end_in(fields)) is not None]

    def host_status(self, name: str) -> HostStatus:
        """Return one host, whether it is up or not."""
        with explained(self.address):
            return read_host(self._client, name, self.keyring)

    def wanted(self, host: str) -> dict[str, WorkerSet]:
        """Return the sets that are wanted of a host now, by id, whether it has heard of them or not."""
        with explained(self.address):
            found = self._client.call("HGETALL", self._client.names.wanted(host))
        return wanted_in(found, host, self.keyring)[1]

    def nodes(self) -> list[RunNode]:
        """Return every node of every run that goes on: where it runs, what sends to it and what it sends to."""
        with explained(self.address):
            return read_nodes(self._client)

    def workers(self, *, draining: bool = False) -> list[HostedWorkers]:
        """Return the sets of workers on all hosts that are up; ``draining``: also those that drain."""
        up = [status.record for status in self.status() if status.state == "up" and status.record is not None]
        return [each for record in up for each in Host(self, record.name).among(record, draining=draining)]

    def close(self, timeout: float = END_SECONDS) -> None:
        """Stop all that this manager started; :class:`HostError` names what would not stop by then."""
        mine, self._started = self._started, []
        try:
            with explained(self.address):
                left = self._stop_all(mine, timeout)
        finally:
            if self._heartbeat is not None:
                self._heartbeat.end(last=True)  # its hosts end what is left, if they hear nothing else
                self._heartbeat = None
            self._client.close()
        if left:
            raise HostError(f"not all workers have ended within {timeout:g} s: {'; '.join(left)}")

    def _stop_all(self, mine: Sequence[HostedWorkers], timeout: float) -> list[str]:
        until = time.monotonic() + timeout
        up = {status.name: status for status in read_hosts(self._client, self.keyring)} if mine else {}
        there = [each for each in mine if each.host in up and up[each.host].state == "up"]
        silent = [each for each in mine if each.host in up and up[each.host].state != "up" and not up[each.host].over]
        left = [f"{each}: host {each.host}: {up[each.host].why}" for each in silent]
        ending: list[tuple[str, RequestKind, WorkerSet]] = [
            (each.host, "stop", each.ending("now"))
            for each in there
            if each.wanted(up[each.host].record, draining=True)
        ]
        answers = self.asked.all(ending) if ending else []
        refusals = {wanted.id: f" ({error})" for wanted, error in answers if error}  # they may be ending anyway
        while there and time.monotonic() < until:
            records = {status.name: status.record for status in read_hosts(self._client, self.keyring)}
            there = [each for each in there if each.members(records.get(each.host))]
            if there:
                time.sleep(LOOK)
        return [*left, *(f"{each}, processes {each.pids()}{refusals.get(each.id, '')}" for each in there)]

    @property
    def asked(self) -> HostClient:
        """What asks hosts."""
        return HostClient(self._client, self.keyring)

    def owner(self) -> str:
        """Return what hosts know this process by: from now on it says that it lives."""
        if self._heartbeat is None:
            names = self.address.names
            stands = names.heartbeat(self._process.host, self._process.life)
            self._heartbeat = Heartbeat(self.address, words(names, self._process, stands=stands))
            self._heartbeat.start()
        return str(self._process)

    def keep(self, workers: HostedWorkers) -> None:
        """Stop these in the end."""
        self._started.append(workers)

    def lines(self, places: Sequence[str], *, follow: bool) -> Iterator[LogLine]:
        """Return what these workers log and print."""
        return lines_of(self.address, places, self.keyring, follow=follow)

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop all that it started."""
        self.close()


class Hosts(Mapping[str, "Host"]):
    """The hosts of a manager, by name."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def __getitem__(self, name: str) -> Host:
        """Return a host that is up; :class:`HostError` says why it is not."""
        self._manager.host_status(name).require_up()
        return Host(self._manager, name)

    def __iter__(self) -> Iterator[str]:
        return iter([status.name for status in self._manager.status() if status.state == "up"])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(self)


class Host:
    """A machine on which ``celerypipe host`` runs."""

    def __init__(self, manager: Manager, name: str) -> None:
        self._manager = manager
        self.name = name

    def status(self) -> HostRecord:
        """Return what it says of itself: machine, queues, workers; :class:`HostError` if it is not up."""
        return self._manager.host_status(self.name).require_up()

    def start(
        self,
        queue: str,
        count: int = 1,
        *,
        environment: str | None = None,
        preload: Sequence[PreloadedNode] = (),
        pool: PoolName | None = None,
        slots: int | None = None,
        detach: bool = False,
        keep: bool = False,
        wait: bool = True,
        timeout: float = UP_SECONDS,
    ) -> HostedWorkers:
        """Start so many workers of a queue of this host's list, and wait until they are up.

        ``environment``: the one of that list that they run in. ``preload``: nodes that are warm before the first
        message, as pairs of mark and configuration. ``pool``,
        ``slots``: other than ``worker_configs/<queue>.toml`` says. ``keep``: they stay when this manager ends;
        ``detach``: also when their host dies. :class:`HostError` says why they do not come up, or may not be started;
        what was started is stopped then.
        """
        queue = with_environment(queue, environment)
        if complaint := wrong_queue(queue):
            raise ConfigError(f"queue: {complaint}")
        if count < 0:
            raise ConfigError(f"count must be 0 or more, not {count}")
        if slots is not None and slots < 1:
            raise ConfigError(f"slots must be 1 or more, not {slots}")
        if pool not in (None, *get_args(PoolName)):
            raise ConfigError(f"pool must be solo, prefork or threads, not {pool!r}")
        stays = keep or detach
        wanted = WorkerSet(
            queue=queue,
            count=count,
            owner="" if stays else self._manager.owner(),
            pool=pool,
            slots=slots,
            preload=tuple((mark, as_json(mark, configuration)) for mark, configuration in preload),
            detached=detach,
        )
        self.status()
        workers = HostedWorkers(self._manager, self.name, wanted)
        granted = False
        try:
            with explained(self._manager.address):
                self._manager.asked.one(self.name, "start", wanted)
            granted = True
            if not stays:
                self._manager.keep(workers)
            if wait:
                workers.wait(timeout)
        except BaseException as error:
            if granted or not isinstance(error, CelerypipeError):  # Ctrl-C, and the host may have agreed
                workers.abandon()
            raise
        return workers

    def workers(self) -> list[HostedWorkers]:
        """Return the sets of workers that are wanted here."""
        return self.among(self.status())

    def among(self, record: HostRecord, *, draining: bool = False) -> list[HostedWorkers]:
        """Return those that it tells of; ``draining``: also those that drain."""
        drain = {each.set for each in record.workers} if draining else set()  # of others nothing is left
        meant = [each for each in record.sets if not each.ending or (each.ending == "drain" and each.id in drain)]
        return [HostedWorkers(self._manager, self.name, each) for each in meant]
