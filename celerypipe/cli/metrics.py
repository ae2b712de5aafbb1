"""``celerypipe metrics``: metrics for Prometheus, and numbers to scale by; printed once, or served."""

from __future__ import annotations

import signal
import threading
from typing import Any

import click
from prometheus_client import generate_latest

from celerypipe.cli.options import REDIS_OR_USUAL, named_redis, queues_option
from celerypipe.settings import Settings
from celerypipe.web.families import registry_of
from celerypipe.web.server import Lookout, MetricsServer, queues_as_json

#: Addresses that other machines do not reach.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ListenAddress(click.ParamType[tuple[str, int]]):
    """Where to listen: ``:9808``, ``0.0.0.0:9808``, ``[::1]:9808``. Without a host only this machine may ask."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return host and port."""
        host, _, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not (port.isascii() and port.isdigit() and int(port) < 65_536):
            self.fail(
                f"{value!r} is no address; write :9808, or 0.0.0.0:9808 for other machines to ask, too", param, ctx
            )
        return host or LOOPBACK[0], int(port)


@click.command()
@REDIS_OR_USUAL
@queues_option("Only this queue")
@click.option("--json", "as_json", is_flag=True, help="Only the queues, as JSON, for what starts and stops workers.")
@click.option(
    "--serve", type=ListenAddress(), metavar="[HOST]:PORT", help="Serve them until Ctrl-C or SIGTERM, such as :9808."
)
def metrics(redis: str | None, queues: list[str], as_json: bool, serve: tuple[str, int] | None) -> None:
    """Print metrics as Prometheus reads them: what runs have done on workers, and how queues and workers are now.

    Served are /metrics, and for KEDA and the like /queues and /queues/NAME as JSON: messages that wait, messages that
    workers have in hand, seconds since the oldest was sent, workers and what they can do at the same time. A queue
    that nobody has heard of is idle. /healthz says that the server lives.
    """
    if serve and (as_json or queues):
        raise click.UsageError("--serve goes without --json and --queue: /queues and /queues/NAME are JSON")
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
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    server.start()
    note = "" if host in LOOPBACK else "; whoever reaches that port may read them"
    click.echo(f"metrics at {server.url}/metrics{note}", err=True)
    while not told.wait(0.5):
        pass
    server.close()
