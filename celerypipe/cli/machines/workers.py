"""``celerypipe worker start | stop | …``: the workers that hosts keep, from any machine."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec
from rich.text import Text

from celerypipe.cli.options import JSON, REDIS_OR_USUAL, Duration, named_redis
from celerypipe.cli.screen.tables import FILE_WIDTH, age, row, table
from celerypipe.cli.screen.terminal import plural
from celerypipe.errors import ConfigError, HostError
from celerypipe.host.hosted import END_SECONDS, UP_SECONDS, HostedWorkers
from celerypipe.host.manager import Host, Manager
from celerypipe.host.records import AUTO
from celerypipe.process.terminals import harmless
from celerypipe.runner.table import paper

TIMEOUT = click.option(
    "--timeout", type=Duration(86_400), default=UP_SECONDS, show_default=True, help="Seconds to wait for it."
)
NO_WAIT = click.option("--no-wait", is_flag=True, help="Return as soon as the host has agreed.")
MEANT = click.argument("which", metavar="WORKERS")


@click.group(name="worker")
def workers() -> None:
    """Start, stop and list the workers that hosts keep alive."""


@workers.command()
@click.option("--host", "name", metavar="HOST", help="The host. Default: the only one that may start this queue.")
@click.option("--queue", "-Q", required=True, metavar="QUEUE", help="The queue; it is on the list of the host.")
@click.option("--count", type=click.IntRange(1), default=1, show_default=True, help="How many workers.")
@click.option(
    "--pool",
    "-P",
    type=click.Choice(["solo", "prefork", "threads"]),
    help="Default: as worker_configs/QUEUE.toml there says.",
)
@click.option("--slots", "--concurrency", "-c", type=click.IntRange(1), help="Processes or threads of each.")
@click.option(
    "--preload",
    multiple=True,
    metavar="MARK[=JSON]",
    help='A node that is warm before the first message: tasks.gpu.ReadText={"device": "auto"}. Repeatable.',
)
@click.option("--detach", is_flag=True, help="They go on when their host dies, and are its own again when it is back.")
@NO_WAIT
@TIMEOUT
@REDIS_OR_USUAL
def start(
    name: str | None,
    queue: str,
    count: int,
    pool: str | None,
    slots: int | None,
    preload: tuple[str, ...],
    detach: bool,
    no_wait: bool,
    timeout: float,
    redis: str | None,
) -> None:
    """Start workers of a queue on a host. They stay until they are stopped, and are started again if they die."""
    named_redis(redis)
    with Manager(redis) as manager:
        host = manager.hosts[name] if name is not None else _only_host(manager, queue)
        nodes = [_preload(text) for text in preload]
        click.echo(f"starting {plural(count, 'worker')} of queue {queue} on {host.name}", err=True)
        facts: dict[str, Any] = {"pool": pool, "slots": slots, "preload": nodes, "detach": detach, "keep": True}
        found = host.start(queue, count, wait=not no_wait, timeout=timeout, **facts)
        click.echo(found.id)


@workers.command()
@MEANT
@click.option("--now", is_flag=True, help="Hand back what they have in hand. Default: finish it.")
@click.option("--timeout", type=Duration(86_400), help="Seconds to wait for their end. Default: as long as it takes.")
@REDIS_OR_USUAL
def stop(which: str, now: bool, timeout: float | None, redis: str | None) -> None:
    """Stop workers. WORKERS: an id of `celerypipe worker ls`, or its beginning, or HOST/QUEUE for all there."""
    _stop(which, drain=not now, timeout=timeout, redis=redis)


@workers.command()
@MEANT
@click.option("--timeout", type=Duration(86_400), help="Seconds to wait for their end. Default: as long as it takes.")
@REDIS_OR_USUAL
def drain(which: str, timeout: float | None, redis: str | None) -> None:
    """Stop workers once they have finished what they have in hand; the same as `stop`."""
    _stop(which, drain=True, timeout=timeout, redis=redis)


def _stop(which: str, *, drain: bool, timeout: float | None, redis: str | None) -> None:
    named_redis(redis)
    with Manager(redis) as manager:
        meant = _meant(manager, which, draining=not drain or "/" not in which)
        for each in meant:
            click.echo(f"stopping {each}" + (", once they are through with what they have in hand" if drain else ""))
            each.stop(drain=drain, wait=False)
        for each in meant:
            each.join(timeout if timeout is not None or drain else END_SECONDS)


@workers.command()
@MEANT
@NO_WAIT
@TIMEOUT
@REDIS_OR_USUAL
def restart(which: str, no_wait: bool, timeout: float, redis: str | None) -> None:
    """Start workers anew, once they have finished what they have in hand; also those that were given up."""
    named_redis(redis)
    with Manager(redis) as manager:
        for each in _meant(manager, which):
            click.echo(f"restarting {each}")
            each.restart(wait=not no_wait, timeout=timeout)


@workers.command()
@MEANT
@click.argument("count", type=click.IntRange(0))
@NO_WAIT
@TIMEOUT
@REDIS_OR_USUAL
def scale(which: str, count: int, no_wait: bool, timeout: float, redis: str | None) -> None:
    """Have COUNT workers in place of those that there are; those that go finish what they have in hand."""
    named_redis(redis)
    with Manager(redis) as manager:
        found = _meant(manager, which)
        if len(found) != 1:
            raise ConfigError(f"{which!r} means several: {', '.join(each.id for each in found)}; give one id")
        found[0].scale(count, wait=not no_wait, timeout=timeout)
        click.echo(f"{found[0]}: {count}")


@workers.command()
@REDIS_OR_USUAL
@JSON
def ls(redis: str | None, as_json: bool) -> None:
    """List the workers that hosts keep, and how the last ones ended that were not told to.

    asked: when it last asked its queue for work; it does not while all its processes have some. message: when it last
    began one. A worker that waits in vain and one that has nothing to do differ by these.
    """
    named_redis(redis, tell=not as_json)
    with Manager(redis) as manager:
        up = [status.record for status in manager.status() if status.state == "up" and status.record is not None]
        ends = [end for end in manager.ends(10) if not end.asked]
    if as_json:
        said = [{"host": record.name, **msgspec.to_builtins(each)} for record in up for each in record.workers]
        click.echo(json.dumps({"workers": said, "ends": msgspec.to_builtins(ends)}, indent=2, ensure_ascii=False))
        return
    console = paper(FILE_WIDTH)
    names = "workers", "host", "queue", "pid", "state", "for", "in hand", "starts", "asked", "message"
    gpus = any(each.device for record in up for each in record.workers)
    listing = table(*names, *(["GPU"] if gpus else []), "why it ended last")
    for record in up:
        for each in record.workers:
            number = f"{each.set} {each.number}"
            held = ", ".join(f"{count} of {node}" for _, node, count in each.held) or "-"
            facts = each.queue, str(each.pid or "-"), each.state, age(each.since), held, str(each.starts)
            clocks = ["-" if seconds is None else f"{age(seconds)} ago" for seconds in (each.polled, each.message)]
            clocks += [each.device or "-"] if gpus else []
            row(listing, number, record.name, *facts, *clocks, each.why or "-")
    if listing.rows:
        console.print(listing)
    elif up:
        click.echo("no host keeps a worker; start one: celerypipe worker start -Q QUEUE")
    else:
        click.echo("no host is up; see `celerypipe hosts`")
    for end in ends:
        held = "".join(f"; it had {count} messages of {node} of {run} in hand" for run, node, count in end.held)
        text = f"{end.host}: a worker of queue {end.queue}, process {end.pid}, ended: {end.how}; {end.next}{held}"
        console.print(Text(harmless(text), style="red"), soft_wrap=True)


def _only_host(manager: Manager, queue: str) -> Host:
    """Return the one host that may start workers of this queue."""
    up = {status.name: status.record for status in manager.status() if status.state == "up"}
    able = [name for name, record in up.items() if record is not None and queue in record.queues]
    if len(able) == 1:
        return manager.hosts[able[0]]
    if able:
        raise ConfigError(f"several hosts may start workers of queue {queue!r}: add --host {' or --host '.join(able)}")
    if not up:
        raise HostError("no host is up; on a machine that is to run workers: celerypipe host. See `celerypipe hosts`")
    lists = "; ".join(f"{name} has {', '.join(record.queues)}" for name, record in up.items() if record is not None)
    raise ConfigError(f"no host that is up may start workers of queue {queue!r}: {lists}; add it to a host.toml")


def _meant(manager: Manager, word: str, *, draining: bool = False) -> list[HostedWorkers]:
    """Return the sets of workers that a word means: an id or its beginning, or a host and a queue."""
    there = manager.workers(draining=draining)
    host, slash, queue = word.partition("/")
    if slash:
        found = [each for each in there if each.host == host and each.queue == queue]
    else:
        found = [each for each in there if word and each.id.startswith(word)]
        if len(found) > 1:
            raise ConfigError(f"{word!r} begins several ids: {', '.join(each.id for each in found)}; write more of it")
    if not found:
        _refuse_scaled(manager, word)
        known = ", ".join(f"{each.id} ({each.host}/{each.queue})" for each in there) or "none"
        raise ConfigError(f"no workers {word!r} are kept by a host that is up; there are: {known}")
    return found


def _refuse_scaled(manager: Manager, word: str) -> None:
    for status in manager.status():
        for queue in status.record.autoscale if status.record is not None and status.state == "up" else ():
            if word in (f"{AUTO}{queue}", f"{status.name}/{queue}"):
                raise ConfigError(
                    f"the workers of queue {queue!r} on {status.name} come and go with the work: change `autoscale` of "
                    f"[queues.{queue}] in the host.toml there, and restart the host"
                )


def _preload(text: str) -> tuple[str, dict[str, Any]]:
    mark, _, rest = text.partition("=")
    try:
        configuration = json.loads(rest or "{}")
    except ValueError as error:
        raise ConfigError(
            f'--preload {mark}: {rest!r} is no JSON ({error}); write {mark}={{"device": "auto"}}'
        ) from None
    if not isinstance(configuration, dict):
        raise ConfigError(f"--preload {mark}: the configuration must be an object, not {rest}")
    return mark, configuration
