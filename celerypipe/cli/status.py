"""``celerypipe status``: what goes on in a Redis."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.table import Table
from rich.text import Text

from celerypipe.cli.options import REDIS_OR_USUAL, named_redis
from celerypipe.mailbox.status import Busy, MailboxStatus, QueueStatus, RunStatus, Status, WorkerStatus, read_status
from celerypipe.process.terminals import harmless
from celerypipe.redis.address import Address
from celerypipe.redis.connection import connect, explained
from celerypipe.runner.table import paper

#: Seconds that Redis has for one answer.
PATIENCE = 2.0
#: Columns of what goes into a file or a pipe.
FILE_WIDTH = 140


@click.command()
@REDIS_OR_USUAL
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON; ages are seconds.")
def status(redis: str | None, as_json: bool) -> None:
    """Show the runs, queues, nodes and workers of a Redis.

    Runs: active runs with warped nodes, and those that ended in the last ten seconds. A run is "lost" if its process
    died. Queues: Celery tasks and messages that wait, and the age of the oldest message. Nodes: for each warped node
    the messages that are sent and not answered, how many of them no worker has taken yet, and the slots that are
    busy. Workers: their machine, their queues, and what they are doing.

    All of it is read from Redis in a few milliseconds; no worker is asked, so busy solo workers are shown too.
    """
    address = named_redis(redis).or_default
    with explained(address), connect(address, name="celerypipe-status", timeout=PATIENCE) as client:
        found = read_status(client)
    if as_json:
        click.echo(json.dumps({"redis": address.shown, **asdict(found)}, indent=2, ensure_ascii=False))
        return
    console = paper(FILE_WIDTH)
    for table in _tables(found, address):
        console.print(table, soft_wrap=isinstance(table, Text))  # a command is copied whole
    for worker in found.workers:
        if worker.stranger:
            text = f"the worker on {worker.host} (pid {worker.pid}) {worker.stranger}"
            console.print(Text(harmless(text), style="red"), soft_wrap=True)


def _tables(found: Status, address: Address) -> list[Table | Text]:
    if not found.runs and not found.workers:
        return [Text(f"no run is active, and no worker is alive; start one: {address.worker_command('QUEUE')}")]
    tables = [_runs(found.runs), _queues(found.queues), _mailboxes(found.mailboxes), _workers(found.workers)]
    return [table for table in tables if table.rows]


def _runs(runs: tuple[RunStatus, ...]) -> Table:
    table = _table("run", "pipeline", "state", "age", "runner")
    for run in runs:
        _row(table, run.id, run.pipeline, run.state, _age(run.age), f"{run.host} (pid {run.pid})")
    return table


def _queues(queues: tuple[QueueStatus, ...]) -> Table:
    table = _table("queue", "tasks waiting", "messages", "oldest", "workers", "slots")
    for queue in queues:
        workers = Text(str(queue.workers), style="" if queue.workers else "red")
        oldest = _age(queue.oldest)
        _row(table, queue.name, str(queue.tasks), str(queue.messages), oldest, workers, str(queue.slots))
    return table


def _mailboxes(mailboxes: tuple[MailboxStatus, ...]) -> Table:
    table = _table("node", "run", "mark", "queue", "out", "waiting", "oldest", "slots at work")
    for box in mailboxes:
        counts = str(box.out), str(box.waiting), _age(box.oldest), str(box.slots)
        _row(table, box.node, box.run, box.mark, box.queue, *counts)
    return table


def _workers(workers: tuple[WorkerStatus, ...]) -> Table:
    table = _table("worker", "pid", "pool", "slots", "queues", "age", "busy with")
    for worker in workers:
        busy = ", ".join(map(_at_work, worker.busy))
        pool = f"{worker.pool}, keeps interrupted processes" if worker.keeps_interrupted else worker.pool
        facts = str(worker.pid), pool, str(worker.slots), ", ".join(worker.queues), _age(worker.age)
        _row(table, worker.host, *facts, busy or "-")
    return table


def _at_work(busy: Busy) -> str:
    doing = "warms up" if busy.warming else "works"
    return f"{busy.node} of {busy.run}, {doing} for {_age(busy.seconds)}"


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in table.columns:
        column.overflow = "fold"
    return table


def _row(table: Table, *cells: str | Text) -> None:
    """Add a row. Runs and workers wrote these words, or a stranger did: they are no markup and steer no terminal."""
    table.add_row(*(Text(harmless(cell)) if isinstance(cell, str) else cell for cell in cells))


def _age(seconds: float | None) -> str:
    """Seconds as people read them; - for none."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
