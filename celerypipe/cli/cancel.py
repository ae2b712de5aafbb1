"""``celerypipe cancel``: stop a run from anywhere."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from celerypipe.cli.options import REDIS_OR_USUAL, named_redis
from celerypipe.mailbox.cancellation import Cancelled
from celerypipe.mailbox.cancellation import cancel as cancel_run
from celerypipe.mailbox.holder import Holder
from celerypipe.process.terminals import harmless
from celerypipe.redis.connection import connect, explained

#: Seconds that Redis has for one answer.
PATIENCE = 2.0


@click.command()
@click.argument("run")
@REDIS_OR_USUAL
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def cancel(run: str, redis: str | None, as_json: bool) -> None:
    """Cancel RUN at once, from any machine.

    RUN is the id of a run, or the beginning of one: `celerypipe status` and the report show it.

    The process of the run ends with exit status 1 and prints its report. Messages that are not finished are dropped.
    Workers are free within two seconds: prefork and solo workers stop in the middle of a message; a threads worker
    finishes its current message and drops the result.

    Exit status: 0 the run is cancelled, or was over already; 2 there is no such run; 69 Redis cannot be reached.
    """
    address = named_redis(redis).or_default
    with explained(address), connect(address, name="celerypipe-cancel", timeout=PATIENCE) as client:
        done = cancel_run(client, run)
    if as_json:
        click.echo(json.dumps(asdict(done), indent=2, ensure_ascii=False))
        return
    for line in _lines(done):
        click.echo(harmless(line))


def _lines(done: Cancelled) -> list[str]:
    run = done.run
    if run.state in ("finished", "failed"):
        return [f"run {run.id} ({run.pipeline}) is already over: it {run.state}"]
    lines = [f"run {run.id} ({run.pipeline}) is cancelled"]
    if not done.runner_ended:
        silent = "does not answer any more" if run.state == "lost" else "has not ended yet"
        lines.append(f"  its runner on {run.host} (pid {run.pid}) {silent}")
    for busy in done.busy:
        host = Holder.read(busy.consumer).process.host
        lines.append(f"  {host} (pid {busy.pid}) still runs a message of {busy.node!r}; its result will be dropped")
    return lines
