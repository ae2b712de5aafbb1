"""Do the workers of a queue fit a warped node? By what they say of themselves; nobody is asked anything.

Asked before a run (:mod:`celerypipe.check.preflight`), and during it whenever other workers serve the queue than
before.
"""

from __future__ import annotations

import difflib
import itertools
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from celerypipe import codec
from celerypipe.catalogue.arguments import complaints_from_schema
from celerypipe.catalogue.catalogue import built_in_marks
from celerypipe.catalogue.outline import not_awaited
from celerypipe.check.demands import WRITES, cannot_keep, demands, lacks_slots
from celerypipe.check.finding import Finding
from celerypipe.definition.pipeline import NodeDefinition
from celerypipe.errors import did_you_mean
from celerypipe.mailbox.presence import Presence
from celerypipe.redis.address import Address

#: What the code of a node begins with that is known by its source alone.
SOURCE = "source "
#: What several workers say of themselves.
Workers = Sequence[Presence]


def missing(
    node: NodeDefinition, address: Address, live: Iterable[Presence], elsewhere: Sequence[str] = (), unbuilt: str = ""
) -> Finding:
    """Say that no live worker of this Redis serves a node's queue; ``live``: all that live, for the nearest name.

    ``elsewhere``: other namespaces in which workers serve a queue of that name; ``unbuilt``: why the last one
    here could not start.
    """
    limits = node.warp_configuration
    names = sorted({name for worker in live for name in worker["queues"]})
    near = difflib.get_close_matches(node.queue, names, n=1, cutoff=0.0)
    text = f"no live worker serves queue {node.queue!r}"
    text += f": {unbuilt}\n" if unbuilt else f" (nearest live queue: {near[0]!r})" if near else ""
    if elsewhere:
        where = " and ".join(map(repr, elsewhere))
        text += f" in this namespace; workers of queue {node.queue!r} are in namespace {where}: "
        text += f"CELERYPIPE_NAMESPACE={elsewhere[0]}, where the run is started, reaches them"
    command = address.worker_command(node.queue)
    if limits.on_no_worker == "local":
        return Finding("note", "worker", "workers", f"{text}; it will run here", command)
    if limits.on_no_worker == "wait":
        return Finding("warning", "worker", "workers", f"{text}; the run waits for one", command)
    severity: Any = "error" if node.on_error == "stop" else "warning"
    return Finding(severity, "worker", "workers", f"{text}, and on_no_worker is fail", command)


def findings(
    node: NodeDefinition, workers: Workers, declared: str | None, nodes: Iterable[NodeDefinition]
) -> list[Finding]:
    """Return what speaks against these workers of the node's queue.

    ``declared``: the version of its class here; ``nodes``: all of its pipeline.
    """
    knowing = [worker for worker in workers if node.mark in worker["marks"]]
    found = [_of_marks(node, workers), *(check(node, knowing) for check in CHECKS)]
    found += [_of_slots(node, knowing, nodes), _of_versions(node, knowing, declared)]
    return list(dict.fromkeys(itertools.chain.from_iterable(found)))


def code_findings(node: NodeDefinition, workers: Workers, here: str) -> list[Finding]:
    """Say which workers have other code of a node than lies ``here``; if that is not known, that they differ.

    A class that declares a version answers for its code by that: it is among the other findings.
    """
    place, mark = f"node {node.name!r}", node.mark
    codes = {named(worker): str(worker["marks"].get(mark, {}).get("code", "")) for worker in workers}
    codes = {name: code for name, code in codes.items() if code.startswith(SOURCE)}
    cure = "with this code, or give each project a CELERYPIPE_NAMESPACE of its own"
    if here.startswith(SOURCE):
        why = f"has other code of {mark} than this machine: it was started before an edit, or with another project"
        others = [name for name, code in codes.items() if code != here]
        return [Finding("warning", "code", place, f"{name} {why}", f"restart it {cure}") for name in others]
    alike: dict[str, list[str]] = {}
    for name, code in codes.items():
        alike.setdefault(code, []).append(name)
    if len(alike) < 2:
        return []
    text = f"the workers of queue {node.queue!r} have different code of {mark}: "
    text += "; ".join(" and ".join(names) for names in alike.values())
    return [Finding("warning", "code", place, text, f"restart those {cure}")]


def _of_marks(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    place, queue = f"node {node.name!r}", node.queue
    strangers = [worker for worker in workers if node.mark not in worker["marks"]]
    if strangers and len(strangers) == len(workers):
        known = {known for worker in workers for known in worker["marks"]}
        own = sorted(known.difference(built_in_marks()))
        text = f"no worker of queue {queue!r} knows the mark {node.mark!r}{did_you_mean(node.mark, known)}"
        text += f" (its workers know {', '.join(own)})" if own else " (its workers know built-in nodes alone)"
        yield Finding("error", "mark", place, text, _cure_of_mark(node, known))
        return
    for worker in strangers:
        text = f"{named(worker)} does not know the mark {node.mark!r}; tasks that it takes wait for another one"
        yield Finding("warning", "mark", place, text, _cure_of_mark(node, worker["marks"]))


def _cure_of_mark(node: NodeDefinition, known: Iterable[str]) -> str:
    """``known``: the marks that its workers know."""
    command = f"celery -A celerypipe worker -Q {shlex.quote(node.queue)}"
    module, _, name = node.mark.rpartition(".")
    if not module and any(each.endswith(f".{name}") for each in known):
        return "write the mark with its module in front"
    if not module:
        return f"give the worker the plugin folder that has it: CELERYPIPE_PLUGINS=FOLDER {command}"
    if module in {each.rpartition(".")[0] for each in known}:
        return f"correct the mark, or, if {name} is new in {module}, restart the worker: {command}"
    where = "that holds tasks/" if module.startswith("tasks.") else f"from which {module} can be imported"
    return f"restart the worker in the folder {where}: {command} -I {module}"


def _of_arguments(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    unsettled = node.from_environment
    for worker in workers if not node.called else ():
        for found in complaints_from_schema(worker["marks"][node.mark], node.configuration, unsettled):
            cure = f"celerypipe nodes {node.mark}"
            yield Finding("error", "arguments", f"node {node.name!r} ({node.mark})", found.text, cure)


def _of_awaiting(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    for worker in workers:
        for text in not_awaited(worker["marks"][node.mark].get("awaits", ())):
            said, _, cure = text.rpartition("; ")
            yield Finding("error", "async", f"node {node.name!r} ({node.mark})", said, cure)


def _of_state(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    place, limits = f"node {node.name!r} ({node.mark})", node.warp_configuration
    for worker in workers:
        told = worker["marks"][node.mark]
        stateful, snapshots = bool(told.get("stateful")), bool(told.get("snapshots"))
        for key, text in demands(limits, stateful=stateful, snapshots=snapshots):
            said, _, cure = text.rpartition("; ")
            yield Finding("error", "stateful", place, f"warp_configuration.{key} {said}" if key else said, cure)


def _of_writing(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    if any(worker["marks"][node.mark].get("writable") for worker in workers):
        yield Finding("note", "writable", f"node {node.name!r} ({node.mark})", WRITES)


def _of_slots(node: NodeDefinition, workers: Workers, nodes: Iterable[NodeDefinition]) -> Iterator[Finding]:
    """``nodes``: all of the pipeline, of which several may be pinned on this queue."""
    pinned = sum(1 for each in nodes if each.warped and each.queue == node.queue and each.warp_configuration.pinned)
    if node.warp_configuration.pinned:
        slots = {named(worker): int(worker["slots"]) for worker in workers}
        text, _, cure = lacks_slots(pinned, slots).rpartition("; ")
        if text:
            yield Finding("error", "pinned", f"node {node.name!r} ({node.mark})", text, cure)


def _of_batches(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    size = node.warp_configuration.batches.size
    if size > 1 and not all(worker["marks"][node.mark].get("batches") for worker in workers):
        text = f"warp_configuration.batch.size is {size}, but it has no update_batch(messages)"
        cure = "write one and restart the worker, or leave batch out"
        yield Finding("error", "batch", f"node {node.name!r} ({node.mark})", text, cure)


def _of_cache(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    for worker in workers:
        stateful = bool(worker["marks"][node.mark].get("stateful"))
        if node.cache is not None and (text := cannot_keep(stateful=stateful)):
            said, _, cure = text.rpartition("; ")
            yield Finding("error", "cache", f"node {node.name!r} ({node.mark})", f"cache {said}", cure)


def _of_caches(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    """What a node calls or runs from there is kept where its worker says."""
    kept: dict[str, list[str]] = {}
    for worker in workers:
        kept.setdefault(str(worker.get("cache") or ""), []).append(named(worker))
    kept.pop("", None)
    if len(kept) > 1:
        text = f"the workers of queue {node.queue!r} have different result caches, for what nodes start there: "
        text += "; ".join(f"{', '.join(names)}: {where}" for where, names in sorted(kept.items()))
        cure = "start them with the same CELERYPIPE_CACHE_URL and CELERYPIPE_CACHE, or the same [cache] in host.toml"
        yield Finding("warning", "cache", f"queue {node.queue!r}", text, cure)


def _of_programs(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    """The list of each worker has the program that the node names."""
    if node.mark != "program" or node.from_environment:
        return
    name, values = str(node.configuration.get("program")), node.configuration.get("values") or {}
    for worker in workers:
        known = worker.get("programs") or {}
        found = known.get(name)
        if found is None:
            there = ", ".join(sorted(known)) or "none"
            text = f"{named(worker)} has no program {name!r} on its list{did_you_mean(name, known)}; it has: {there}"
        elif missing := found.get("missing"):
            text = f"{named(worker)} cannot run program {name!r}: {missing}"
        elif wrong := sorted(set(found["values"]) ^ set(values)):
            takes = ", ".join(found["values"]) or "none"
            text = f"program {name!r} of {named(worker)} takes the values {takes}: {', '.join(wrong)} do not fit"
        else:
            continue
        cure = f"add [programs.{name}] to worker_configs/{node.queue}.toml there and restart it, or correct the node"
        yield Finding("error", "program", f"node {node.name!r} (program)", text, cure)


def _of_compression(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    way = node.warp_configuration.compression
    for worker in workers:
        if way != "none" and way not in worker.get("compressions", [way]):
            text = f"warp_configuration.compression is {way!r}, and its worker on {worker['host']} has no package for "
            text += "that"
            cure = "pip install 'celerypipe[compression]' there, or leave compression out"
            yield Finding("error", "compression", f"node {node.name!r} ({node.mark})", text, cure)


def _of_requirements(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    for worker in workers:
        if lines := worker.get("unmet", {}).get(node.mark):
            text = f"{named(worker)} has not what {node.mark} asks for in its requirements.txt: {', '.join(lines)}"
            cure = f"celerypipe remotize --isolate -m {node.mark}, or pip install -r there"
            yield Finding("warning", "requirements", f"node {node.name!r}", text, cure)


def _of_timeouts(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    """A thread cannot be interrupted: its time is kept, but what it was at goes on."""
    for worker in workers:
        if node.timeout is not None and not worker["interrupts"]:
            text = f"{named(worker)} cannot stop what exceeds the timeout of {node.timeout:g} s: its pool is "
            text += f"{worker['pool']}; the message fails in time, and the slot stays busy until update() returns"
            cure = f"celery -A celerypipe worker -P prefork -Q {shlex.quote(node.queue)}"
            yield Finding("warning", "timeout", f"node {node.name!r}", text, cure)


def _of_codecs(node: NodeDefinition, workers: Workers) -> Iterator[Finding]:
    ours = codec.CODEC_VERSION
    strangers = [worker for worker in workers if worker["versions"].get("codec") != ours]
    severity: Any = "error" if len(strangers) == len(workers) else "warning"
    for worker in strangers:
        text = f"{named(worker)} speaks codec {worker['versions'].get('codec')}, this machine {ours}; it reads none of "
        text += "our messages"
        cure = f"install the same celerypipe here and on {worker['host']}, and restart the worker"
        yield Finding(severity, "codec", f"node {node.name!r}", text, cure)


def _of_versions(node: NodeDefinition, workers: Workers, declared: str | None) -> Iterator[Finding]:
    place = f"node {node.name!r}"
    theirs = {str(worker["marks"][node.mark].get("version", "")) for worker in workers}
    if declared is None:
        if len(theirs) > 1:
            shown = " and ".join(sorted(map(repr, theirs)))
            text = f"the workers of queue {node.queue!r} have {node.mark} in the versions {shown}"
            yield Finding("warning", "version", place, text, f"install the same code on all workers of {node.queue!r}")
        return
    for worker in workers:
        version = str(worker["marks"][node.mark].get("version", ""))
        if version != declared:
            text = f"{node.mark} is version {declared!r} here and {version!r} on {named(worker)}"
            cure = (
                f"install the same code there and restart it: celery -A celerypipe worker -Q {shlex.quote(node.queue)}"
            )
            yield Finding("error", "version", place, text, cure)


def named(worker: Presence) -> str:
    """Return how a worker is called in a sentence."""
    return f"the worker on {worker['host']} (pid {worker['pid']})"


#: All that is asked of workers that know the mark.
CHECKS: tuple[Callable[[NodeDefinition, Workers], Iterator[Finding]], ...] = (
    _of_codecs,
    _of_arguments,
    _of_awaiting,
    _of_state,
    _of_writing,
    _of_batches,
    _of_cache,
    _of_caches,
    _of_programs,
    _of_compression,
    _of_requirements,
    _of_timeouts,
)
