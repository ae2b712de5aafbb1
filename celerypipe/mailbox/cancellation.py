"""Cancelling a run from outside: its lease says ``cancelled``, and runner and activations see that within a second."""

from __future__ import annotations

import time
from dataclasses import dataclass

from celerypipe.errors import ConfigError, UnknownRun
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.mailbox import cancelling
from celerypipe.mailbox.status import Busy, RunStatus, read_busy, read_runs
from celerypipe.redis.connection import Client
from celerypipe.redis.script import call

#: Seconds within which a cancelled run is over, wherever work can be interrupted.
PATIENCE = 1.8
#: Seconds within which each keeper of a worker looks at the lease once.
LOOK = 1.3


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What became of it. ``run.state`` is what it was before.

    ``runner_ended``: the runner has taken the run apart. ``busy``: what is still worked on, in vain.
    """

    run: RunStatus
    runner_ended: bool
    busy: tuple[Busy, ...]


def cancel(client: Client, word: str) -> Cancelled:
    """Cancel the run of this id, or the only one whose id begins so.

    Returns when nothing works for it any more, after ``PATIENCE`` seconds at most. :class:`UnknownRun` names the runs
    there are. One that is over already is left as it is.
    """
    run = known(client, word)
    run_id = run.id
    busy = read_busy(client, run_id)
    before = call(client, cancelling(client.names, run_id))
    if before in (b"finished", b"failed"):
        return Cancelled(run, runner_ended=True, busy=())
    start = time.monotonic()
    while True:
        ended = not client.exists(client.names.reply(run_id))
        waited = time.monotonic() - start
        if waited > LOOK or not busy:
            busy = _still(client, busy)
            if (ended and not busy) or waited > PATIENCE:
                return Cancelled(run, runner_ended=ended, busy=tuple(busy))
        time.sleep(0.05)


def known(client: Client, word: str) -> RunStatus:
    """Return the run of this id, or the only one whose id begins so; :class:`UnknownRun` names those there are."""
    runs, _ = read_runs(client, client.now())
    near = [run for run in runs if run.id == word] or [run for run in runs if word and run.id.startswith(word)]
    if len(near) == 1:
        return near[0]
    if near:
        names = ", ".join(run.id for run in near)
        raise ConfigError(f"{word!r} begins the ids of {len(near)} runs ({names}); write more of it")
    raise UnknownRun(word, {run.id: run.pipeline for run in runs if run.state == "running"})


def _still(client: Client, busy: list[Busy]) -> list[Busy]:
    """Those activations that hold their bells; a keeper takes a bell again that the runner removed."""
    bells = [f"{client.names.bell(each.run, each.node)}{Holder.read(each.consumer).slot}" for each in busy]
    owners = client.call("MGET", *bells) if bells else ()
    return [each for each, owner in zip(busy, owners, strict=True) if owner == each.consumer.encode()]
