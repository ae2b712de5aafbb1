"""What goes on in one Redis: runs, the queues and mailboxes of their warped nodes, and the workers that serve them.

Everything is read from keys that runners and workers keep anyway; nobody is asked, and nothing is written. A run that
warps no node is not in here: it never meets Redis.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import redis

from celerypipe.mailbox.holder import Holder, Process
from celerypipe.mailbox.presence import Presence, foreign, presences_of, read_presences
from celerypipe.redis import keys
from celerypipe.redis.connection import Client, Command

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Busy:
    """A message that is worked on: of which run and node, for how many seconds, by which process.

    ``warming``: its node warms up, so that its time has not begun.
    """

    run: str
    node: str
    seconds: float
    pid: int
    consumer: str
    warming: bool = False


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """The mailbox of a warped node: ``out`` messages are on their way, ``waiting`` of them no live worker has in hand.

    ``oldest``: seconds since the oldest of them was sent, None without one. ``slots``: activations of live
    workers that hold its bells.
    """

    run: str
    node: str
    mark: str
    queue: str
    out: int
    waiting: int
    oldest: float | None
    slots: int


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run. ``state``: ``running``, ``cancelled``, ``finished``, ``failed``, or ``lost``: its runner says
    nothing any more.
    """

    id: str
    pipeline: str
    state: str
    age: float
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue of Celery: ``tasks`` in it (bells, and whatever others send), messages of all runs for its nodes."""

    name: str
    tasks: int
    messages: int
    oldest: float | None
    workers: int
    slots: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A live worker, and what it is busy with; ``age`` in seconds.

    ``keeps_interrupted``: its processes stay after a node was interrupted in them.
    """

    id: str
    host: str
    pid: int
    pool: str
    slots: int
    queues: tuple[str, ...]
    age: float
    busy: tuple[Busy, ...]
    #: Why it serves no run of this celerypipe; empty if it does.
    stranger: str = ""
    keeps_interrupted: bool = False
    #: What Celery calls it.
    name: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """All of it, at one moment."""

    runs: tuple[RunStatus, ...]
    queues: tuple[QueueStatus, ...]
    mailboxes: tuple[MailboxStatus, ...]
    workers: tuple[WorkerStatus, ...]


class NodeStatus(msgspec.Struct):
    """What a run tells of one of its warped nodes."""

    mark: str
    queue: str


class About(msgspec.Struct):
    """What a run tells of itself, in a key beside its lease."""

    pipeline: str
    host: str
    pid: int
    started: float
    nodes: dict[str, NodeStatus]
    #: All its nodes, those that run where it was started too, and how they are linked.
    marks: dict[str, str] = {}
    links: list[tuple[str, str]] = []


@dataclass(frozen=True, slots=True)
class RunNode:
    """A node of a run that goes on. ``hosts``: where it may run: that of its run, or those of its queue's workers.

    ``queue``: empty if it runs where the run was started; ``workers``: the ids of those that serve its queue;
    ``sources`` and ``targets``: the nodes that send to it, and those that it sends to.
    """

    run: str
    pipeline: str
    name: str
    mark: str
    queue: str
    hosts: tuple[str, ...]
    workers: tuple[str, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]


#: Messages in hand: the run's id, the node's name, how many.
InHand = tuple[str, str, int]
#: A node of a run: the run's id, the node's name, and what its runner says of it.
NodeOfRun = tuple[str, str, NodeStatus]


def read_status(client: Client) -> Status:
    """Read everything, in six round trips."""
    now = client.now()
    workers = read_presences(client)
    runs, nodes = read_runs(client, now)
    mailboxes, busy = _read_mailboxes(client, nodes, workers, now)
    names = sorted({name for worker in workers for name in worker["queues"]} | {each.queue for each in mailboxes})
    tasks = client.together(*[("LLEN", client.names.queue(name)) for name in names]) if names else []
    queues = tuple(
        _queue(name, 0 if isinstance(count, Exception) else count, mailboxes, workers)
        for name, count in zip(names, tasks, strict=True)
    )
    return Status(runs, queues, mailboxes, tuple(_worker(worker, busy, now) for worker in workers))


def read_runs(client: Client, now: float) -> tuple[tuple[RunStatus, ...], list[NodeOfRun]]:
    """Return the runs that go on or ended a few seconds ago, the oldest first, and their warped nodes."""
    runs: list[RunStatus] = []
    nodes: list[NodeOfRun] = []
    for run, facts, state in _read_abouts(client):
        said = state.decode(errors="replace") if state is not None else "lost"
        runs.append(RunStatus(run, facts.pipeline, said, max(0.0, now - facts.started), facts.host, facts.pid))
        nodes += [(run, name, node) for name, node in facts.nodes.items()]
    return tuple(sorted(runs, key=lambda run: -run.age)), nodes


def _read_abouts(client: Client) -> list[tuple[str, About, bytes | None]]:
    """Return what each run tells of itself, and its state, in two round trips."""
    ids = [name.decode(errors="replace") for name in client.call("ZRANGE", client.names.runs, 0, -1)]
    told = client.call("MGET", *map(client.names.about, ids), *map(client.names.run, ids)) if ids else []
    found = zip(ids, map(_about, told[: len(ids)]), told[len(ids) :], strict=True)
    return [(run, about, state) for run, about, state in found if about is not None]


def read_nodes(client: Client) -> list[RunNode]:
    """Return every node of every run that goes on, in three round trips."""
    running = [(run, about) for run, about, state in _read_abouts(client) if state == b"running"]
    workers = read_presences(client) if running else []
    found = []
    for run, about in running:
        for name, mark in {**about.marks, **{name: node.mark for name, node in about.nodes.items()}}.items():
            queue = about.nodes[name].queue if name in about.nodes else ""
            serving = [worker for worker in workers if queue in worker["queues"]] if queue else []
            hosts = sorted({worker["host"] for worker in serving}) if queue else [about.host]
            sources = tuple(source for source, target in about.links if target == name)
            targets = tuple(target for source, target in about.links if source == name)
            ids_of = tuple(worker["id"] for worker in serving)
            found.append(RunNode(run, about.pipeline, name, mark, queue, tuple(hosts), ids_of, sources, targets))
    return found


def _about(text: bytes | None) -> About | None:
    """What a run tells of itself; None if it is gone, or no run of ours wrote that."""
    try:
        return msgspec.json.decode(text, type=About) if text is not None else None
    except (ValueError, RecursionError) as error:
        logger.debug("what no run of celerypipe says of itself: %s", error)
        return None


def read_busy(client: Client, run: str, workers: Sequence[Presence] | None = None) -> list[Busy]:
    """Return what is worked on for one run; ``workers``: those of its queues, where they are known."""
    facts = _about(client.call("GET", client.names.about(run)))
    if facts is None:
        return []
    if workers is None:
        workers = presences_of(client, {node.queue for node in facts.nodes.values()})
    return _read_mailboxes(client, [(run, *node) for node in facts.nodes.items()], workers, client.now())[1]


def read_held(client: Client) -> dict[str, list[InHand]]:
    """Return the messages that workers have in hand, or had when they ended, by the life of the worker."""
    _, nodes = read_runs(client, client.now())
    asked = [("XPENDING", client.names.mailbox(run, name), keys.GROUP) for run, name, _ in nodes]
    found: dict[str, list[InHand]] = {}
    for (run, name, _), pending in zip(nodes, client.together(*asked) if asked else (), strict=True):
        if isinstance(pending, Exception):  # it is gone, its run ended
            continue
        counts: dict[str, int] = {}
        for consumer, count in pending[3] or ():
            life = Holder.read(consumer.decode(errors="replace")).process.life
            counts[life] = counts.get(life, 0) + int(count)
        for life, count in counts.items():
            found.setdefault(life, []).append((run, name, count))
    return found


def _read_mailboxes(
    client: Client, nodes: Sequence[NodeOfRun], workers: Sequence[Presence], now: float
) -> tuple[tuple[MailboxStatus, ...], list[Busy]]:
    if not nodes:
        return (), []
    lives = {Process.read(worker["id"]).life for worker in workers}
    commands: list[Command] = []
    for run, name, node in nodes:
        stream = client.names.mailbox(run, name)
        slots = sum(int(worker["slots"]) for worker in workers if node.queue in worker["queues"])
        bells = [f"{client.names.bell(run, name)}{slot}" for slot in range(max(slots, 1))]
        oldest: Command = ("XRANGE", stream, "-", "+", "COUNT", 1)
        commands += [("XLEN", stream), ("XPENDING", stream, keys.GROUP), oldest, ("MGET", *bells)]
    answers = client.together(*commands)
    found, given = [], []
    for place, (run, name, node) in enumerate(nodes):
        length, pending, first, bells = answers[4 * place : 4 * place + 4]
        held = {bell.decode(errors="replace") for bell in bells if bell is not None and not bell.startswith(b"r:")}
        held = {name for name in held if Holder.read(name).process.life in lives}  # who is dead holds it for a moment
        if isinstance(length, Exception) or isinstance(pending, Exception):  # it is gone, its run ended
            length, pending, first = 0, (0, None, None, None), ()
        sent = int(first[0][0].partition(b"-")[0]) / 1000 if first else None
        age = max(0.0, now - sent) if sent is not None else None
        hands = {raw.decode(errors="replace"): int(count) for raw, count in pending[3] or ()}
        living = sum(count for consumer, count in hands.items() if Holder.read(consumer).process.life in lives)
        waiting = max(0, length - living)  # what a dead worker had in hand, another one has to take
        found.append(MailboxStatus(run, name, node.mark, node.queue, length, waiting, age, len(held)))
        given += [(run, name, consumer) for consumer in hands if consumer in held]
    return tuple(found), _busy(client, given)


def _busy(client: Client, given: Sequence[tuple[str, str, str]]) -> list[Busy]:
    """What those activations work on that were given messages and hold their bells."""
    commands = [
        ("XPENDING", client.names.mailbox(run, node), keys.GROUP, "-", "+", 1, consumer)
        for run, node, consumer in given
    ]
    signs = [("EXISTS", client.names.warming(consumer)) for _, _, consumer in given]
    answers = client.together(*commands, *signs) if given else []
    busy = []
    for (run, node, consumer), pending, sign in zip(given, answers[: len(given)], answers[len(given) :], strict=True):
        if pending and not isinstance(pending, redis.ResponseError):
            pid, seconds = Holder.read(consumer).process.pid, pending[0][2] / 1000
            busy.append(Busy(run, node, seconds, pid, consumer, warming=sign == 1))
    return busy


def _queue(name: str, tasks: int, mailboxes: Iterable[MailboxStatus], workers: Iterable[Presence]) -> QueueStatus:
    own = [mailbox for mailbox in mailboxes if mailbox.queue == name]
    ages = [mailbox.oldest for mailbox in own if mailbox.oldest is not None]
    serving = [worker for worker in workers if name in worker["queues"]]
    slots = sum(int(worker["slots"]) for worker in serving)
    return QueueStatus(name, tasks, sum(each.out for each in own), max(ages, default=None), len(serving), slots)


def _worker(record: Presence, busy: Iterable[Busy], now: float) -> WorkerStatus:
    processes = {record["pid"], *record.get("processes", ())}
    own = tuple(
        each for each in busy if each.pid in processes and Holder.read(each.consumer).process.host == record["host"]
    )
    age = max(0.0, now - (record.get("started", now) - record.get("clock", 0.0)))
    queues = tuple(record["queues"])
    facts = record["id"], record["host"], record["pid"], record["pool"], record["slots"]
    more = bool(record.get("keeps_interrupted")), record.get("name", "")
    return WorkerStatus(*facts, queues, age, own, foreign(record), *more)
