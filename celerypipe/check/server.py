"""What Redis and its surroundings say about a run before it begins: version, role, room, eviction, disk, clocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from celerypipe.check.finding import Finding, Scene, Severity
from celerypipe.mailbox.blob.blob import INLINE_LIMIT
from celerypipe.mailbox.presence import Presence

OLDEST = (6, 2)
#: Seconds of a round trip above which it is worth knowing, and above which a pipeline crawls.
SLOW, VERY_SLOW = 0.005, 0.050
#: Seconds that clocks may be apart before logs and Flower mislead who reads them.
APART = 2.0
#: Connections that a run has: it sends, keeps, reads, and its heartbeat is heard; two more while a message is late, or
#: its bytes are fetched. And those of the result cache, if a node has one: it asks, and four threads fetch large ones.
CONNECTIONS_OF_RUN, CONNECTIONS_OF_CACHE = 4 + 2, 1 + 4


def is_too_old(scene: Scene) -> Iterator[Finding]:
    """Scripts and streams as they are used here came with 6.2."""
    version = str(scene.server.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < OLDEST:
        text = f"Redis {version} is too old; celerypipe needs 6.2 or newer"
        yield Finding("error", "redis", "Redis", text, "install a newer one, as with apt or docker run redis:7")


def is_hidden(scene: Scene) -> Iterator[Finding]:
    """Without INFO most of this module says nothing."""
    if not scene.server:
        text = "this user may not run INFO, so memory, eviction and disk are not checked"
        yield Finding("note", "redis", "Redis", text, f"{scene.redis_cli} ACL SETUSER <user> +info")


def cannot_write(scene: Scene) -> Iterator[Finding]:
    """A replica, a cluster, one that is loading, one whose disk is full: whatever is sent there is refused."""
    info = scene.server
    if info.get("role") == "slave":
        primary = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
        text = f"it is a replica of {primary} and refuses what a run writes"
        yield Finding("error", "role", "Redis", text, f"give the address of its primary: redis://{primary}/0")
    if info.get("redis_mode") == "cluster":
        text = "it is a cluster, and Celery has no broker for that; one plain Redis carries more than a pipeline needs"
        yield Finding("error", "role", "Redis", text, "redis-server --port 6380, and give its address")
    if info.get("loading"):
        text = "it reads its data from disk and refuses everything until it has"
        yield Finding("error", "loading", "Redis", text, f"wait until this says 0: {scene.redis_cli} INFO persistence")
    if info.get("rdb_last_bgsave_status") == "err" or info.get("aof_last_write_status") == "err":
        text = "it could not write to its disk, and refuses all changes until it can"
        cure = f"make room on that disk, then: {scene.redis_cli} BGSAVE"
        yield Finding("error", "disk", "Redis", text, cure)


def evicts(scene: Scene) -> Iterator[Finding]:
    """What is evicted is made again, as after FLUSHALL; queue lists of Celery are not."""
    policy = str(scene.server.get("maxmemory_policy", "noeviction"))
    bounded = int(scene.server.get("maxmemory", 0)) > 0
    cure = f"{scene.redis_cli} CONFIG SET maxmemory-policy noeviction"
    if policy.startswith("allkeys-"):
        severity: Severity = "warning" if bounded else "note"
        text = f"it evicts whatever it likes when it is full ({policy}), also Celery's queues and messages on their way"
        yield Finding(severity, "eviction", "Redis", text, cure)
    elif policy.startswith("volatile-") and bounded:
        text = f"when it is full it evicts messages on their way ({policy}); their runner then sends them again"
        yield Finding("note", "eviction", "Redis", text, cure)


def is_short_of_memory(scene: Scene) -> Iterator[Finding]:
    """Compare what is free with what the windows of the warped nodes and the byte budget let a run put there."""
    windows = [node.warp_configuration.window for node in scene.pipeline.warped]
    most = max(scene.budget, sum(windows) * INLINE_LIMIT)
    used, limit = int(scene.server.get("used_memory", 0)), int(scene.server.get("maxmemory", 0))
    machine = int(scene.server.get("total_system_memory", 0))
    bound = limit or machine
    if not bound:
        return
    free = max(0, bound - used)
    cure = f"{scene.redis_cli} CONFIG SET maxmemory {_mebibytes(used + 2 * most)}mb"
    if not limit:
        cure = "more memory for its machine, or a smaller Runner(byte_budget=...)"
    if limit and not free:
        text = f"its memory is full ({_mebibytes(limit)} MiB), and it refuses messages"
        yield Finding("error", "memory", "Redis", text, cure)
    elif free < most:
        text = (
            f"it has {_mebibytes(free)} MiB left, and a run may have {_mebibytes(most)} MiB on their way: when it is "
        )
        text += "full, the run waits until workers have made room"
        yield Finding("warning" if limit else "note", "memory", "Redis", text, cure)


def is_short_of_connections(scene: Scene) -> Iterator[Finding]:
    """Compare the connections that are free with what a run and the slots of its workers may open."""
    info = scene.server
    if "maxclients" not in info or "connected_clients" not in info:
        return
    limit, taken = int(info["maxclients"]), int(info["connected_clients"])
    cached = any(node.cache is not None for node in scene.pipeline.nodes)
    slots = sum(connections_of_slots(worker) for worker in scene.workers if scene.concerns(worker))
    needed = CONNECTIONS_OF_RUN + CONNECTIONS_OF_CACHE * cached + slots
    if limit - taken < needed:
        text = f"it takes {max(0, limit - taken)} more connections (maxclients is {limit}, {taken} are open), and this "
        text += f"run may need {needed}: those that it refuses are tried again and again"
        enough = -(-(taken + 2 * needed) // 100) * 100
        cure = f"{scene.redis_cli} CONFIG SET maxclients {enough} (its limit of open files, ulimit -n, must allow that)"
        yield Finding("warning", "connections", "Redis", text, cure)


def connections_of_slots(worker: Presence) -> int:
    """Those that a worker opens with its first messages: one a slot, and one that keeps the slots of a process.

    One of another protocol may not say what its pool is.
    """
    slots = int(worker["slots"])
    return slots + (slots if worker.get("pool", "prefork") == "prefork" else 1)


def does_not_persist(scene: Scene) -> Iterator[Finding]:
    """A run survives a Redis that comes back empty; what nobody runs any more does not."""
    if scene.server and not scene.server.get("aof_enabled"):
        text = "a crash loses what it held since its last snapshot; runs send theirs again, other Celery tasks are lost"
        yield Finding("note", "persistence", "Redis", text, f"{scene.redis_cli} CONFIG SET appendonly yes")


def is_far_away(scene: Scene) -> Iterator[Finding]:
    """A message that comes alone waits for three round trips."""
    if scene.latency > SLOW:
        severity: Severity = "warning" if scene.latency > VERY_SLOW else "note"
        text = f"a round trip takes {scene.latency * 1000:.1f} ms, and a message that comes alone waits for about three"
        cure = "a Redis nearer to runner and workers; many messages at a time travel together (a larger window)"
        yield Finding(severity, "latency", "Redis", text, cure)


def clocks_differ(scene: Scene) -> Iterator[Finding]:
    """Nothing here compares two clocks, but people do, who read logs and Flower."""
    cure = "timedatectl set-ntp true"
    if abs(scene.offset) > APART:
        text = f"this machine's clock is {_apart(-scene.offset)} that of Redis; logs and Flower will mislead"
        yield Finding("warning", "clock", "this machine", text, f"on both machines: {cure}")
    for worker in scene.workers:
        offset = float(worker.get("clock", 0.0))
        if abs(offset) > APART and scene.concerns(worker):
            text = f"the clock of the worker with pid {worker['pid']} is {_apart(offset)} that of Redis"
            text += "; logs and Flower will mislead"
            yield Finding("warning", "clock", f"machine {worker['host']}", text, f"on both machines: {cure}")


def _apart(seconds: float) -> str:
    amount = f"{abs(seconds):.0f} s" if abs(seconds) < 120 else f"{abs(seconds) / 60:.0f} minutes"
    return f"{amount} {'ahead of' if seconds > 0 else 'behind'}"


def _mebibytes(count: int) -> int:
    return -(-count // 1024**2)


#: All that is asked about Redis and the clocks.
CHECKS: tuple[Callable[[Scene], Iterator[Finding]], ...] = (
    is_hidden,
    is_too_old,
    cannot_write,
    evicts,
    is_short_of_memory,
    is_short_of_connections,
    does_not_persist,
    is_far_away,
    clocks_differ,
)
