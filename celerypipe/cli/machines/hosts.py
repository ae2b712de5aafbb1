"""``celerypipe hosts``: the machines that start workers, and why one of them is not there."""

from __future__ import annotations

import json

import click
import msgspec
from rich.text import Text

from celerypipe.cli.options import JSON, REDIS_OR_USUAL, named_redis
from celerypipe.cli.screen.tables import FILE_WIDTH, age, row, size, table
from celerypipe.host.manager import Manager
from celerypipe.host.overview import HostStatus
from celerypipe.process.terminals import harmless
from celerypipe.runner.table import paper

#: Seconds by which a clock may differ from that of Redis before it is said.
CLOCK = 1.0


@click.command()
@click.argument("names", metavar="[HOST]...", nargs=-1)
@REDIS_OR_USUAL
@JSON
def hosts(names: tuple[str, ...], redis: str | None, as_json: bool) -> None:
    """Show the hosts: machines on which `celerypipe host` runs, or ran in the last 30 days.

    States: up; gone: it was there, and since when; refused: it is there, with other keys or another version; never
    seen. For each that is not up one line says why, and what to do.

    Exit status: 0 all that are shown are up; 1 one of those that were named is not.
    """
    address = named_redis(redis).or_default
    with Manager(redis) as manager:
        found = [manager.host_status(name) for name in names] or manager.status()
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(status) for status in found], indent=2, ensure_ascii=False))
    elif not found:
        click.echo(f"no host was ever seen in {address.shown}; on a machine that is to run workers: celerypipe host")
    else:
        _show(found)
    if names and any(status.state != "up" for status in found):
        raise SystemExit(1)


def _show(found: list[HostStatus]) -> None:
    console = paper(FILE_WIDTH)
    listing = table("host", "state", "for", "machine", "cores", "load", "memory used", "GPUs", "workers")
    for status in found:
        record = status.record
        if record is None:
            row(listing, status.name, status.state, age(status.since), *["-"] * 6)
            continue
        machine = record.machine
        queues = ", ".join(
            f"{queue} {sum(each.queue == queue for each in record.workers)}/{most}"
            for queue, most in record.queues.items()
        )
        gpus = ", ".join(f"{gpu.name} {size(gpu.memory_used)} of {size(gpu.memory)}" for gpu in machine.gpus)
        used = f"{size(machine.memory_used)} of {size(machine.memory)}"
        facts = f"{machine.cores:g}", f"{machine.load:.1f}", used, gpus or "-", queues
        row(listing, status.name, status.state, age(status.since), record.hostname, *facts)
    console.print(listing)
    for status in found:
        if status.why:
            console.print(Text(harmless(f"{status.name}: {status.why}"), style="red"), soft_wrap=True)
        elif (ahead := status.record.clock if status.record else 0.0) and abs(ahead) >= CLOCK:
            differs = f"its clock is {age(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} that of Redis"
            does = "no harm to runs; for the times in its own logs, there: timedatectl set-ntp true"
            console.print(Text(harmless(f"{status.name}: {differs}: {does}"), style="yellow"), soft_wrap=True)
