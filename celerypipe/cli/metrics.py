"""``celerypipe metrics``: metrics for Prometheus, and numbers to scale by; printed once, or served."""

from __future__ import annotations

import signal
from queue import SimpleQueue

import click
from prometheus_client import generate_latest

from celerypipe.cli.options import REDIS_OR_USUAL, named_redis, queues_option
from celerypipe.settings import Settings
from celerypipe.web.families import registry_of
from celerypipe.web.server import Lookout, MetricsServer, queues_as_json

#: Addresses that other machines do not reach.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def listen_address(text: str) -> tuple[str, int]:
    """Read where to listen: ``:9808``, ``0.0.0.0:9808``, ``[::1]:9808``. Without a host only this machine may ask."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise click.BadParameter(
            f"{text!r} is no address; write :9808, or 0.0.0.0:9808 to be reached from other machines"
        )
    return host or LOOPBACK[0], int(port)


@click.command()
@REDIS_OR_USUAL
@queues_option("Print only this queue")
@click.option("--json", "as_json", is_flag=True, help="Print only the queues, as JSON.")
@click.option(
    "--serve", type=listen_address, metavar="[HOST]:PORT", help="Serve until Ctrl-C or SIGTERM; example: :9808."
)
def metrics(redis: str | None, queues: list[str], as_json: bool, serve: tuple[str, int] | None) -> None:
    """Print metrics for Prometheus: what workers did for all runs, and the state of queues and workers.

    --serve answers /metrics for Prometheus, /queues and /queues/NAME with JSON for KEDA, and /healthz. The JSON of a
    queue has: messages that wait, messages that a worker has taken, the age of the oldest in seconds, workers and
    their slots. All are 0 for an unknown queue.
    """
    if serve and (as_json or queues):
        raise click.UsageError("--serve cannot be combined with --json or --queue; ask it for /queues or /queues/NAME")
    address = named_redis(redis).or_default
    lookout = Lookout(address, Settings.from_environment().cache.redis)
    if serve is not None:
        _serve(lookout, *serve)
        return
    found = lookout.look()
    found = found.of(queues) if queues else found
    text = queues_as_json(found.queues, 2) if as_json else generate_latest(registry_of(lambda: found)).decode()
    click.echo(text.rstrip("\n"))


def _serve(lookout: Lookout, host: str, port: int) -> None:
    """Serve until a signal comes; that is a good end."""
    lookout.say = lambda text: click.echo(text, err=True)
    server = MetricsServer(host, port, lookout)
    told: SimpleQueue[None] = SimpleQueue()  # it may be written to inside a signal handler, an Event may not
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.put(None))
    server.start()
    note = "" if host in LOOPBACK else "; anyone who can reach this port can read them"
    click.echo(f"metrics at {server.url}/metrics{note}", err=True)
    told.get()
    server.close()
