"""``celerypipe health``: is there a worker? For whoever asks every few seconds: it imports little, and ends in time."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import click

from celerypipe.cli.options import JSON, REDIS_OR_USUAL, Duration, named_redis, queues_option
from celerypipe.cli.screen.terminal import plural
from celerypipe.errors import RedisUnavailable
from celerypipe.mailbox.presence import Presence, elsewhere, read_presences, stranger
from celerypipe.process.terminals import harmless
from celerypipe.redis.address import Address
from celerypipe.redis.connection import Client, connect, explained
from celerypipe.redis.signing import VARIABLE, Keyring


@dataclass(frozen=True, slots=True)
class Health:
    """The workers of a queue, and their slots. ``why``: what is wrong, and the cure; empty if nothing is."""

    queue: str
    workers: int = 0
    slots: int = 0
    why: str = ""

    def __str__(self) -> str:
        text = self.why or f"{plural(self.workers, 'worker')}, {plural(self.slots, 'slot')}"
        return f"{self.queue}: {text}" if self.queue else text


@click.command()
@queues_option("The queue that the worker must serve")
@click.option("--here", is_flag=True, help="Count only workers with the host name of this machine or container.")
@click.option(
    "--timeout",
    type=Duration(3600),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long Redis may take to answer.",
)
@REDIS_OR_USUAL
@JSON
def health(queues: list[str], here: bool, timeout: float, redis: str | None, as_json: bool) -> None:
    """Exit with 0 if a worker is alive, also one that is busy with a long message.

    For health checks of containers, probes and monitors: celerypipe health --here --queue gpu

    Exit status: 0 Redis answers, and a compatible worker is alive; 1 otherwise, and one line on standard error says
    why. Do not stop workers because Redis is down: they wait for it, and go on.
    """
    address = named_redis(redis, tell=False).or_default
    keyring = Keyring.parse(os.environ.get(VARIABLE, ""), address.namespace)
    host = socket.gethostname() if here else ""
    found: list[Health] = []
    why = ""
    try:
        found = in_time(timeout, address, lambda client: look(client, queues, host, keyring))
        why = "; ".join(str(each) for each in found if each.why)
    except RedisUnavailable as error:
        why = str(error)
    if as_json:
        counts = {each.queue: {"workers": each.workers, "slots": each.slots} for each in found if each.queue}
        said = {"healthy": not why, "why": why, "redis": address.shown, "queues": counts}
        click.echo(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        click.echo(harmless(why or "; ".join(map(str, found))), err=bool(why))
    sys.exit(1 if why else 0)


def in_time(seconds: float, address: Address, asked: Callable[[Client], list[Health]]) -> list[Health]:
    """Ask Redis; :class:`RedisUnavailable` also where that takes longer, be it a name server that does not answer.

    The thread that still waits then ends with this process.
    """
    answer: Future[list[Health]] = Future()

    def ask() -> None:
        try:
            with explained(address), connect(address, name="celerypipe-health", timeout=seconds) as client:
                answer.set_result(asked(client))
        except RedisUnavailable as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        cure = "it is overloaded or stopped, or the network to it is"
        raise RedisUnavailable(f"Redis does not answer within {seconds:g} s: {address}; {cure}") from None


def look(client: Client, queues: Sequence[str], host: str, keyring: Keyring | None) -> list[Health]:
    """Return how the workers of each queue are; without a queue, all together. ``host``: only those there count."""
    live = read_presences(client)
    return [_health(client, queue, live, host, keyring) for queue in queues or [""]]


def _health(client: Client, queue: str, live: Sequence[Presence], host: str, keyring: Keyring | None) -> Health:
    serving = [worker for worker in live if not queue or queue in worker["queues"]]
    meant = [worker for worker in serving if not host or worker["host"] == host]
    strange = {worker["id"]: stranger(worker, keyring) for worker in meant}
    fine = [worker for worker in meant if not strange[worker["id"]]]
    if fine:
        served = queue or ", ".join(sorted({name for worker in fine for name in worker["queues"]}))
        return Health(served, len(fine), sum(worker["slots"] for worker in fine))
    if meant:
        first = meant[0]
        return Health(queue, why=f"the worker on {first['host']} (pid {first['pid']}) {strange[first['id']]}")
    if queue and not serving and (spaces := elsewhere(client, queue)):
        where = " and ".join(map(repr, spaces))
        cure = f"CELERYPIPE_NAMESPACE={spaces[0]} here, if that is meant"
        return Health(queue, why=f"no live worker in this namespace, but in namespace {where}: {cure}")
    text = f"no live worker on this machine, {host}" if host else "no live worker"
    if serving:
        text += f", but on {', '.join(sorted({worker['host'] for worker in serving}))}"
    elif live:
        text += f" (there are workers of {', '.join(sorted({name for worker in live for name in worker['queues']}))})"
    return Health(queue, why=f"{text}; start one: {client.address.worker_command(queue or 'QUEUE')}")
