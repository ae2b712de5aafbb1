"""Preflight: can this pipeline run now, with this Redis and the workers that live?

Redis and the workers' presence keys are read, in a dozen round trips; nobody is asked anything, since a busy solo
worker would not answer. The first thing every run does, and all that ``celerypipe check --live`` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import celery
import redis

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.declaration import version_in_file, version_of_mark
from celerypipe.catalogue.here import code_of_mark, code_of_plugin
from celerypipe.check import server
from celerypipe.check.finding import Finding, Scene
from celerypipe.check.workers import code_findings, findings, missing, named
from celerypipe.definition.pipeline import NodeDefinition, Pipeline
from celerypipe.errors import CelerypipeError, ConfigError, NoWorker, RedisUnavailable, UnknownMark
from celerypipe.mailbox import hints
from celerypipe.mailbox.presence import elsewhere, foreign, presences_of, read_presences
from celerypipe.process.version import VERSION
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Client, accepted
from celerypipe.redis.signing import Keyring

#: Round trips that are timed, and seconds after which no further one is.
SAMPLES, ENOUGH = 5, 0.2
#: Parts of INFO that the checks read.
SECTIONS = ("server", "clients", "memory", "persistence", "replication")


def look(
    client: Client, address: Address, pipeline: Pipeline, catalogue: Catalogue, *, budget: int, keyring: Keyring | None
) -> Scene:
    """Read everything the checks look at; whatever redis-py raises is the caller's to explain."""
    latency, offset = _measured(client)
    declared = {node.name: found for node in pipeline.warped if (found := _declared(node, catalogue)) is not None}
    info = _info(client)
    shut = _is_shut(info)
    queues = {node.queue for node in pipeline.warped}
    workers = () if shut else tuple(presences_of(client, queues))
    codes = {node.name: code_here(node, catalogue) for node in pipeline.warped}
    missed = queues - {queue for worker in workers for queue in worker["queues"]}
    if missed and not shut:  # all others: one of their queues may be meant
        workers = tuple(read_presences(client))
    others = {} if shut else {queue: elsewhere(client, queue) for queue in missed}
    unbuilt = {} if shut else {queue: hints.unbuilt(client, queue) for queue in missed}
    return Scene(pipeline, address, info, workers, latency, offset, budget, declared, codes, others, unbuilt, keyring)


def _is_shut(info: Mapping[str, Any]) -> bool:
    """Does this Redis tell nothing of its workers? One that loads its data does not, nor does one of a cluster."""
    return bool(info.get("loading")) or info.get("redis_mode") == "cluster"


def inspect(scene: Scene) -> list[Finding]:
    """Return all findings, the worst ones first."""
    found = dict.fromkeys(finding for check in CHECKS for finding in check(scene))
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def error_of(found: Sequence[Finding]) -> CelerypipeError | None:
    """Return what a run ends with before it begins, if anything was found that it cannot begin with."""
    errors = [finding for finding in found if finding.severity == "error"]
    if not errors:
        return None
    text = "\n".join(map(str, errors))
    if all(finding.check == "worker" for finding in errors):
        return NoWorker(text)
    if any(finding.place == "Redis" for finding in errors):
        return RedisUnavailable(text)
    return UnknownMark(text) if all(finding.check == "mark" for finding in errors) else ConfigError(text)


def _of_workers(scene: Scene) -> Iterator[Finding]:
    """Every queue has a worker, and all workers of it fit the node."""
    for node in scene.pipeline.warped:
        if _is_shut(scene.server):
            return
        workers = scene.workers_of(node.queue)
        ours = [worker for worker in workers if not scene.stranger(worker)]
        if ours:
            yield from findings(node, ours, scene.declared.get(node.name), scene.pipeline.nodes)
            yield from code_findings(node, ours, scene.codes.get(node.name, ""))
        elif not workers:
            others, unbuilt = scene.elsewhere.get(node.queue, ()), scene.unbuilt.get(node.queue, "")
            yield missing(node, scene.address, scene.workers, others, unbuilt)


def _of_strangers(scene: Scene) -> Iterator[Finding]:
    """Somebody on every queue speaks the protocol of the run, and takes what it signs, or does not sign."""
    for queue in dict.fromkeys(node.queue for node in scene.pipeline.warped):
        workers = scene.workers_of(queue)
        found = [(worker, text) for worker in workers if (text := scene.stranger(worker))]
        severity: Any = "error" if len(found) == len(workers) else "warning"
        for worker, text in found:
            said, _, cure = text.partition(": ")
            said = f"{named(worker)} {said}" + ("" if severity == "error" else "; it gets no work of this run")
            check = "protocol" if foreign(worker) else "keys"
            yield Finding(severity, check, f"queue {queue!r}", said, cure)


def _of_software(scene: Scene) -> Iterator[Finding]:
    """The same celerypipe, Celery and Python on both sides."""
    ours = {"celerypipe": VERSION, "celery": celery.__version__}
    for worker in scene.workers:
        for name, here in ours.items() if scene.concerns(worker) and not foreign(worker) else ():
            there = worker["versions"].get(name, "")
            if there != here:
                text = f"{named(worker)} has {name} {there}, this machine {here}"
                severity: Any = "warning" if name == "celerypipe" else "note"
                yield Finding(severity, name, f"machine {worker['host']}", text, f"pip install {name}=={here} there")


#: All that is looked at before a run.
CHECKS: tuple[Callable[[Scene], Iterator[Finding]], ...] = (*server.CHECKS, _of_strangers, _of_workers, _of_software)


def _declared(node: NodeDefinition, catalogue: Catalogue) -> str | None:
    plugin = catalogue.plugin(node.mark, node.type)
    if plugin is not None:
        return version_in_file(plugin.home / f"{plugin.mark}.py")
    return version_of_mark(node.mark) if "." in node.mark else None


def code_here(node: NodeDefinition, catalogue: Catalogue) -> str:
    """Return the code of a warped node by its source here; empty: it is not here, or not known."""
    plugin = catalogue.plugin(node.mark, node.type)
    if plugin is not None:
        return code_of_plugin(plugin)
    return code_of_mark(node.mark) if "." in node.mark else ""


def _measured(client: Client) -> tuple[float, float]:
    """Return the shortest round trip, and Redis' clock less ours, both in seconds."""
    began, shortest, offset = time.monotonic(), float("inf"), 0.0
    client.ping()  # connects, which takes round trips of its own
    for _ in range(SAMPLES):
        start, wall = time.monotonic(), time.time()
        now = client.now()
        taken = time.monotonic() - start
        if taken < shortest:
            shortest, offset = taken, now - wall - taken / 2
        if time.monotonic() - began > ENOUGH:
            break
    return shortest, offset


def _info(client: Client) -> Mapping[str, Any]:
    """What Redis says of itself; nothing if this user may not ask. Redis 6.2 takes one section at a time."""
    try:
        parts = accepted(client.together(*[("INFO", section) for section in SECTIONS]))
    except redis.exceptions.NoPermissionError:
        return {}
    read = client.response_callbacks["INFO"]  # as redis-py's own method, which asks for one at a time
    return {key: value for part in parts for key, value in read(part).items()}
