"""``celerypipe logs``: what nodes log and print on workers, read from anywhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import IO, Any, cast

import click
from rich.console import Console

from celerypipe.cli.options import REDIS_OR_USUAL, named_redis
from celerypipe.cli.screen.lines import LogDisplay
from celerypipe.errors import ConfigError
from celerypipe.mailbox.logs import READ, LogReader, following, trimmed
from celerypipe.mailbox.presence import read_presences
from celerypipe.mailbox.status import read_runs
from celerypipe.message.logs import LogLine
from celerypipe.process import log
from celerypipe.process.terminals import harmless
from celerypipe.redis.connection import CALL_TIMEOUT, Client, connect, explained
from celerypipe.redis.signing import Keyring
from celerypipe.runner.logs.ordering import Ordering
from celerypipe.settings import Settings

#: Seconds of one wait for more lines.
BLOCK = 1.0


@click.command()
@click.argument("what", metavar="RUN|WORKER")
@click.option("--node", metavar="NAME", help="Only what this node logged and printed.")
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines until the run is over, or until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a record.")
@REDIS_OR_USUAL
def logs(what: str, node: str | None, follow: bool, as_json: bool, redis: str | None) -> None:
    """Show what workers logged and printed: for a run, or one worker for no run.

    RUN is the id of a run, or its beginning: `celerypipe status` shows it. WORKER is the name of a worker, or its id:
    that shows what was logged there outside of any run, while it started, or when it ended.

    Times are those of Redis' clock, so that lines of machines whose clocks differ stand in order. The last 500
    entries of up to 8 KiB are kept, for an hour after the last one. Which records a run has: `celerypipe run
    --log-level`.

    Exit status: 0 shown; 2 there is no such run or worker; 69 Redis cannot be reached.
    """
    address = named_redis(redis).or_default
    console = Console(file=cast(IO[str], sys.stdout))
    lines = LogDisplay(console, at=True, as_json=as_json or log.is_json())
    keyring = Settings.from_environment().keyring
    timeout = CALL_TIMEOUT + BLOCK
    with explained(address), connect(address, name="celerypipe-logs", timeout=timeout) as client:
        of, is_run = _meant(client, what)
        shown = 0
        for line in _lines(client, of, keyring, follow=follow, is_run=is_run):
            if node is None or line.node == node:
                lines.show(line)
                shown += 1
        if not shown and not as_json:
            whose = f"node {node!r} of {of}" if node is not None else of
            click.echo(harmless(f"{whose} has logged nothing so far"), err=True)


def _meant(client: Client, word: str) -> tuple[str, bool]:
    """Return the id that is meant, and whether it is that of a run."""
    runs, _ = read_runs(client, client.now())
    workers = {str(each["id"]): str(each.get("name", "")) for each in read_presences(client)}
    ids = [run.id for run in runs]
    exact = [each for each in ids if each == word] + [each for each, name in workers.items() if word in (each, name)]
    near = exact or [each for each in (*ids, *workers) if word and each.startswith(word)]
    near = near or ([word] if client.exists(client.names.log(word)) else [])
    if len(near) == 1:
        return near[0], near[0] in ids or "." not in near[0]
    if near:
        raise ConfigError(f"{word!r} begins several ids ({', '.join(near)}); write more of it")
    there = [*ids, *(name or each for each, name in workers.items())]
    known = f"there are {', '.join(there[:10])}" if there else "there is none now"
    raise ConfigError(
        f"no run or worker {word!r}: {known}; lines are kept for an hour after the last one, see `celerypipe status`"
    )


def _lines(client: Client, of: str, keyring: Keyring | None, *, follow: bool, is_run: bool) -> Iterator[LogLine]:
    """Yield what is there in its order; then, if that is wanted, what comes."""
    reader = LogReader(of, keyring, whole=not trimmed(client, of))
    ordering = Ordering()
    last, over = b"0-0", False
    while True:
        items = following(client, of, last, BLOCK if follow and not over else None)
        lines = [line for item in items for line in reader.read(item).lines]
        if items:
            last = items[-1][0]
        ordering.put(lines, time.monotonic())
        whole = len(items) < READ and (over or not follow)
        yield from ordering.ready(time.monotonic(), all_of_them=whole)
        if whole:
            return
        over = is_run and not items and _is_over(client, of)


def _is_over(client: Client, run: str) -> bool:
    state: Any = client.get(client.names.run(run))
    return state not in (b"running", b"stopping")
