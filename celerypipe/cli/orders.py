"""``celerypipe set``, ``suspend``, ``unsuspend`` and ``restart``: a hand on a run that goes on, from anywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import msgspec

from celerypipe.cli.endings import Ending
from celerypipe.cli.options import JSON, REDIS_OR_USUAL, named_redis
from celerypipe.errors import ConfigError
from celerypipe.mailbox.cancellation import known
from celerypipe.mailbox.orders import Kind, Obeyed, Order, ask, wait_for
from celerypipe.process.terminals import harmless
from celerypipe.redis.connection import connect, explained
from celerypipe.settings import Settings

#: Seconds that Redis has for one answer.
ANSWER = 2.0
#: Seconds that the run has for all answers: its workers have one and a half.
PATIENCE = 5.0

_RUN = click.argument("run")
_NODE = click.argument("node")


def _give(
    kind: Kind, run: str, node: str, redis: str | None, as_json: bool, property: str = "", value: str = ""
) -> None:
    order = Order(kind, node, property, _value(value) if kind == "set" else None)
    address = named_redis(redis).or_default
    with explained(address), connect(address, name="celerypipe-order", timeout=ANSWER) as client:
        meant = known(client, run)
        if meant.state != "running":
            raise ConfigError(f"run {meant.id} ({meant.pipeline}) is over: it is {meant.state}; nothing was changed")
        ask(client, meant.id, order, Settings.from_environment().keyring)
        found, _ = wait_for(client, meant.id, order, PATIENCE)
    if as_json:
        click.echo(json.dumps([msgspec.structs.asdict(each) for each in found], indent=2, ensure_ascii=False))
    else:
        for line in _lines(order, meant.id, found):
            click.echo(harmless(line))
    sys.exit(Ending.FAILED if any(each.error or each.late for each in found) else Ending.DONE)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _lines(order: Order, run: str, found: list[Obeyed]) -> list[str]:
    what = f"{order.property} = {json.dumps(order.value, ensure_ascii=False)}" if order.kind == "set" else order.kind
    if not found:
        return [f"{order.node}: {what}; no worker serves it at this moment, the next one begins with it (run {run})"]
    lines = [f"{order.node}: {what} (run {run})"]
    for each in found:
        text = "has not answered yet: it does it when its update() is over" if each.late else each.error or "done"
        lines.append(f"  {each.where}: {text}")
    return lines


def _command(kind: Kind) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that has the help."""

    def made(function: Callable[..., None]) -> click.Command:
        arguments = [_RUN, _NODE]
        if kind == "set":
            arguments += [click.argument("property"), click.argument("value")]
        command: Any = partial(_give, kind)
        for each in reversed([*arguments, REDIS_OR_USUAL, JSON]):
            command = each(command)
        return click.command(kind, help=function.__doc__)(command)

    return made


@_command("set")
def set() -> None:  # it is called as the command is
    """Change PROPERTY of NODE to VALUE while RUN goes on.

    RUN is the id of a run, or the beginning of one: `celerypipe status` shows it. VALUE is JSON, or a text where it is
    none: 0.5, true, '[1, 2]', hello.

    All instances of the node call set_on_config(PROPERTY, VALUE), here or on workers, between two messages; those that
    begin later do too. They answer within about a second. One whose update() takes longer is named, and does it
    afterwards. The node has to have a method set_on_config. The result cache knows it as another node from then on.

    Exit status: 0 all have changed it, or none is at work now; 1 some did not, or have not answered yet; 2 there is no
    such run or node; 69 Redis cannot be reached.
    """


@_command("suspend")
def suspend() -> None:
    """Let NODE hand on its messages unchanged, until it is unsuspended.

    A sink drops them. RUN is the id of a run, or the beginning of one: `celerypipe status` shows it.

    Exit status: 0 all instances do, or none is at work now; 1 some did not, or have not answered yet; 2 there is no
    such run or node; 69 Redis cannot be reached.
    """


@_command("unsuspend")
def unsuspend() -> None:
    """Let NODE work again after `celerypipe suspend`.

    RUN is the id of a run, or the beginning of one: `celerypipe status` shows it.

    Exit status: 0 all instances do, or none is at work now; 1 some did not, or have not answered yet; 2 there is no
    such run or node; 69 Redis cannot be reached.
    """


@_command("restart")
def restart() -> None:
    """Make NODE anew: destroy(), then configure() and warmup() before its next message.

    All instances do, here and on workers. What was set stays set. A stateful node keeps its state, by its snapshot.
    RUN is the id of a run, or the beginning of one: `celerypipe status` shows it.

    Exit status: 0 all instances do, or none is at work now; 1 some did not, or have not answered yet; 2 there is no
    such run or node; 69 Redis cannot be reached.
    """
