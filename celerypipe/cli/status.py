"""``celerypipe status``: what goes on in a Redis."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.table import Table
from rich.text import Text

from celerypipe.cli.options import REDIS_OR_USUAL, named_redis
from celerypipe.cli.screen.tables import FILE_WIDTH, age, row, table
from celerypipe.mailbox.status import Busy, MailboxStatus, QueueStatus, RunStatus, Status, WorkerStatus, read_status
from celerypipe.process.terminals import harmless
from celerypipe.redis.address import Address
from celerypipe.redis.connection import connect, explained
from celerypipe.runner.table import paper

#: Seconds that Redis has for one answer.
PATIENCE = 2.0


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
    for each in _tables(found, address):
        console.print(each, soft_wrap=isinstance(each, Text))  # a command is copied whole
    for worker in found.workers:
        if worker.stranger:
            text = f"the worker on {worker.host} (pid {worker.pid}) {worker.stranger}"
            console.print(Text(harmless(text), style="red"), soft_wrap=True)


def _tables(found: Status, address: Address) -> list[Table | Text]:
    if not found.runs and not found.workers:
        return [Text(f"no run is active, and no worker is alive; start one: {address.worker_command('QUEUE')}")]
    tables = [_runs(found.runs), _queues(found.queues), _mailboxes(found.mailboxes), _workers(found.workers)]
    return [each for each in tables if each.rows]


def _runs(runs: tuple[RunStatus, ...]) -> Table:
    made = table("run", "pipeline", "state", "age", "runner")
    for run in runs:
        row(made, run.id, run.pipeline, run.state, age(run.age), f"{run.host} (pid {run.pid})")
    return made


def _queues(queues: tuple[QueueStatus, ...]) -> Table:
    made = table("queue", "tasks waiting", "messages", "oldest", "workers", "slots")
    for queue in queues:
        workers = Text(str(queue.workers), style="" if queue.workers else "red")
        oldest = age(queue.oldest)
        row(made, queue.name, str(queue.tasks), str(queue.messages), oldest, workers, str(queue.slots))
    return made


def _mailboxes(mailboxes: tuple[MailboxStatus, ...]) -> Table:
    made = table("node", "run", "mark", "queue", "out", "waiting", "oldest", "slots at work")
    for box in mailboxes:
        counts = str(box.out), str(box.waiting), age(box.oldest), str(box.slots)
        row(made, box.node, box.run, box.mark, box.queue, *counts)
    return made


def _workers(workers: tuple[WorkerStatus, ...]) -> Table:
    made = table("worker", "pid", "pool", "slots", "queues", "age", "busy with")
    for worker in workers:
        busy = ", ".join(map(_at_work, worker.busy))
        pool = f"{worker.pool}, keeps interrupted processes" if worker.keeps_interrupted else worker.pool
        facts = str(worker.pid), pool, str(worker.slots), ", ".join(worker.queues), age(worker.age)
        row(made, worker.host, *facts, busy or "-")
    return made


def _at_work(busy: Busy) -> str:
    doing = "warms up" if busy.warming else "works"
    return f"{busy.node} of {busy.run}, {doing} for {age(busy.seconds)}"
