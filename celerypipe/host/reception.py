"""Where a host is asked: a Celery worker of its own queue, in a thread, whose one task writes what is wanted.

So Celery's routing, the signatures and users of Redis, ``inspect`` and Flower work for hosts as for workers. It starts
nothing itself: the host's own thread does, by what is wanted then.
"""

from __future__ import annotations

import logging
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from celery import signals
from celery.platforms import SecurityWarning
from celery.worker import state
from celery.worker.control import Panel

from celerypipe.celery.application import SHARED, Application
from celerypipe.definition.names import environment_of
from celerypipe.errors import CelerypipeError, ConfigError, did_you_mean
from celerypipe.host.allowed import QUEUE, Allowed
from celerypipe.host.records import (
    TASK,
    Granted,
    Request,
    WorkerSet,
    answering,
    request_in,
    want,
    wanted_in,
)
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Broken, Client, accepted, connect, said
from celerypipe.redis.signing import Keyring

logger = logging.getLogger("celerypipe.host")

#: Seconds that Redis has for one answer.
PATIENCE = 2.0
#: Seconds that Celery's worker has to end.
LEAVE_SECONDS = 5.0
#: What changes what a worker consumes or how it runs; a host runs one task, and no other.
KEPT = frozenset({"shutdown"})


class HostReception:
    """Takes requests, one after the other. ``nudge`` is called when what is wanted has changed."""

    def __init__(
        self, address: Address, name: str, allowed: Allowed, keyring: Keyring | None, nudge: Callable[[], None]
    ) -> None:
        self._address, self._name, self._allowed = address, name, allowed
        self._keyring, self._nudge = keyring, nudge
        self._thread = threading.Thread(target=self._receive, name="celerypipe-host-reception", daemon=True)
        self._client: Client | None = None
        #: What ended it unasked.
        self.error: BaseException | None = None
        self._listens = threading.Event()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Has Celery's worker ended, because somebody told it to or by a fault?"""
        return not self._thread.is_alive()

    @property
    def is_ready(self) -> bool:
        """Did it begin to listen? Far from Redis, Celery takes some seconds for that."""
        return self._listens.is_set()

    def close(self) -> None:
        """End."""
        state.should_stop = 0
        self._thread.join(LEAVE_SECONDS)
        if self._client is not None:
            self._client.close()

    def _receive(self) -> None:
        app = Application(
            "celerypipe-host",
            loader="celerypipe.celery.application:Loader",
            amqp="celerypipe.celery.broker:Broker",
            events="celerypipe.celery.events:PatientEvents",
            fixups=(),
            set_as_current=False,
        )
        app.conf.update(SHARED)
        app.conf.update(worker_redirect_stdouts=False, worker_send_task_events=True, worker_detect_quorum_queues=False)
        app.serve(self._address)
        app.finalize()
        for name in [name for name in app.tasks if name.startswith("celery.")]:
            app.tasks.unregister(name)
        app.task(self.ask, name=TASK, ignore_result=True)
        for name in [name for name, about in Panel.meta.items() if about.type != "inspect" and name not in KEPT]:
            Panel.data.pop(name, None)
        signals.setup_logging.connect(_leave_alone)
        signals.worker_ready.connect(lambda **_: self._listens.set(), weak=False)
        warnings.simplefilter("ignore", SecurityWarning)  # it is about pickles, of which it takes none
        where = f"{self._name}@{socket.gethostname()}"
        options = {"without_gossip": True, "without_mingle": True, "quiet": True}
        try:
            app.Worker(pool="solo", queues=[f"{QUEUE}{self._name}"], hostname=f"host.{where}", **options).start()
        except Exception as error:  # noqa: BLE001  # whatever it is, the host ends, and shows it
            self.error = error

    def ask(self, argument: Any) -> None:
        """Do what a request wants, and answer; what is no request of ours is refused, here and in the log."""
        try:
            request = request_in(argument, self._name, self._keyring)
        except ConfigError as error:
            logger.error("%s", error)  # noqa: TRY400  # its place says nothing
            return
        try:
            if self._client is None:
                self._client = connect(self._address, name="celerypipe-host-reception", timeout=PATIENCE)
            refusal = self._grant(self._client, request)
            accepted(self._client.together(*answering(self._client.names, request, Granted(refusal))))
        except Broken as error:
            logger.warning("a request was left alone: %s", said(error))
            return
        if refusal:
            logger.warning("refused: %s", refusal)
        else:
            each = request.set
            logger.info("%s: queue %s, %d workers (%s)", request.kind, each.queue, each.count, each.id)
        self._nudge()

    def _grant(self, client: Client, request: Request) -> str:
        """Change what is wanted; return why not."""
        _, sets, _ = wanted_in(client.call("HGETALL", client.names.wanted(self._name)), self._name, self._keyring)
        try:
            wanted = changed(request, sets, self._allowed, self._name)
        except CelerypipeError as error:
            return str(error)
        if not want(client, self._name, wanted, request.until, self._keyring):
            return f"host {self._name} came to it too late, and did nothing; ask again"
        return ""


def changed(request: Request, sets: dict[str, WorkerSet], allowed: Allowed, name: str) -> WorkerSet:
    """Return the set as it is wanted from now on; :class:`ConfigError` says why it cannot be."""
    asked, known = request.set, sets.get(request.set.id)
    if request.kind == "start":
        _require_room(asked, sets, allowed, name)
        return asked
    at_once = request.kind == "stop" and asked.ending == "now"
    if known is None or (known.ending and not (at_once and known.ending == "drain")):
        raise ConfigError(
            f"host {name}: the workers {asked.id!r} "
            + ("were stopped already" if known is None else "are told to end already")
            + "; see `celerypipe worker ls`"
        )
    if request.kind == "stop":
        return msgspec.structs.replace(known, ending=asked.ending or "drain")
    if request.kind == "restart":
        return msgspec.structs.replace(known, generation=known.generation + 1)
    scaled = msgspec.structs.replace(known, count=asked.count)
    _require_room(scaled, sets, allowed, name)
    return scaled


def _require_room(asked: WorkerSet, sets: dict[str, WorkerSet], allowed: Allowed, name: str) -> None:
    queue = allowed.named(asked.queue)
    if not queue:
        own, environment = environment_of(asked.queue)
        cure = f"environments = [{environment!r}] in [queues.{own}]" if own in allowed.queues else f"[queues.{own}]"
        raise ConfigError(
            f"host {name} starts no workers of queue {asked.queue!r}{did_you_mean(asked.queue, allowed.startable)}; "
            f"its list {allowed.path} has {', '.join(allowed.startable)}: add {cure} there, and restart the host"
        )
    rule, others = allowed.queues[queue], 0
    for each in sets.values():
        if allowed.named(each.queue) == queue and each.id != asked.id and not each.ending:
            others += each.count
    kept = rule.autoscale.max if rule.autoscale is not None else 0
    if asked.count < 0 or others + kept + asked.count > rule.most:
        there = f"{others} are there, " if others else ""
        there += f"{kept} are for `autoscale`, " if kept else ""
        raise ConfigError(
            f"host {name} may run {rule.most} workers of queue {queue!r}: {there}{asked.count} were asked "
            f"for; stop some, or raise `most` of [queues.{queue}] in {allowed.path}, and restart the host"
        )


def permitted(sets: Mapping[str, WorkerSet], allowed: Allowed) -> tuple[dict[str, WorkerSet], list[WorkerSet]]:
    """Return of the sets that are wanted those that the list allows, the first ones first, and the others.

    The list may have changed since they were asked for, and whoever writes to Redis may write there.
    """
    fine: dict[str, WorkerSet] = {}
    beyond = []
    for name in sorted(sets):
        one = sets[name]
        try:
            if not one.ending:
                _require_room(one, fine, allowed, "")
        except ConfigError:
            beyond.append(one)
        else:
            fine[name] = one
    return fine, beyond


def _leave_alone(**_: Any) -> None:
    """Celery sets no log up where somebody hears this signal."""
