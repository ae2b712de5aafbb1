"""``celerypipe trace`` and ``celerypipe replay-hop``: where one message spent its time, and what a node made of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from celerypipe.catalogue.instance import brief
from celerypipe.catalogue.instance import trace as trace_of
from celerypipe.cli.endings import Ending
from celerypipe.cli.options import JSON, REDIS_OR_USUAL, SET, named_redis
from celerypipe.cli.screen.letters import content_of
from celerypipe.cli.screen.paths import paths_in
from celerypipe.definition.overrides import Overrides
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import ConfigError, UnknownRun, did_you_mean
from celerypipe.mailbox.cancellation import known
from celerypipe.mailbox.holder import Holder
from celerypipe.mailbox.orders import Order, ask, wait_for
from celerypipe.message.message import Message
from celerypipe.process.terminals import harmless
from celerypipe.redis.connection import Client, connect, explained
from celerypipe.runner.assembly import instance_of
from celerypipe.runner.folder.folder import TRACES
from celerypipe.runner.folder.recording import RecordedHop, about, alike, hop_in
from celerypipe.settings import Settings

#: Seconds that Redis has for one answer, and a run.
ANSWER, PATIENCE = 2.0, 5.0
#: Columns of the bars.
BARS = 50
#: What is drawn for each part of the time at a node.
MARKS = {"hold": "░", "wait": "▒", "warm-up": "▓", "run": "█", "transfer": "─"}


@click.command()
@click.argument("run", metavar="RUN|FOLDER")
@click.argument("message", required=False)
@click.option(
    "--slowest", type=click.IntRange(1, 1000), metavar="N", help="The N messages that took longest; default 5."
)
@REDIS_OR_USUAL
@JSON
def trace(run: str, message: str | None, slowest: int | None, redis: str | None, as_json: bool) -> None:
    """Show where one message of a run spent its time, node by node, as a waterfall.

    RUN is the id of a run, or its beginning; once it is over, lines are kept for an hour. FOLDER is the folder of a
    pipeline: its last run. MESSAGE is an id, the beginning of one, or the number that its source gave it. Without it,
    the slowest messages are shown.

    hold: before it was sent, because there was no room, it waited behind others, or attempts failed; wait: no worker
    had taken it yet; warm-up: the node warmed up for it; run: in update(); transfer: on the way, there and back.

    The 20 slowest messages of each node are kept, the 20 that it worked on for longest, and the last 20 that failed
    there, with all that came of them.
    Times are those of the run's own clock; what a worker says of itself is how long, not when.

    Exit status: 0 shown; 2 there is no such run or message; 69 Redis cannot be reached.
    """
    if message is not None and slowest is not None:
        raise click.UsageError("give a MESSAGE, or --slowest N, not both")
    paths = _in_folder(Path(run)) if Path(run).is_dir() else _of_run(run, redis)
    if message is not None:
        chosen = [path for path in paths if _is_meant(path, message)]
        if not chosen:
            raise ConfigError(_unknown(message, paths))
    else:
        chosen = paths[: slowest or 5]
    if as_json:
        click.echo(json.dumps(chosen, indent=2, ensure_ascii=False))
        return
    if not chosen:
        click.echo("no message is through a node so far")
        return
    for path in chosen:
        for line in waterfall(path):
            click.echo(harmless(line))
    click.echo("  ".join(f"{mark} {name}" for name, mark in MARKS.items()))


def _in_folder(folder: Path) -> list[dict[str, Any]]:
    try:
        found = (folder / TRACES).read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} has no {TRACES}: it is no folder of a pipeline, or no run of it has ended"
        ) from None
    except OSError as error:
        raise ConfigError(f"{folder / TRACES} cannot be read: {error}") from None
    return paths_in(found, str(folder / TRACES))


def _of_run(run: str, redis: str | None) -> list[dict[str, Any]]:
    address = named_redis(redis).or_default
    with explained(address), connect(address, name="celerypipe-trace", timeout=ANSWER) as client:
        try:
            meant = known(client, run)
        except UnknownRun:
            if (over := _kept(client, run)) is None:
                raise
            return over
        if (over := _kept(client, meant.id)) is not None:
            return over
        order = Order("trace", "")
        ask(client, meant.id, order, Settings.from_environment().keyring)
        found = wait_for(client, meant.id, order, PATIENCE)[1]
        return paths_in(json.dumps(found).encode(), f"the answer of run {meant.id}")


def _kept(client: Client, run: str) -> list[dict[str, Any]] | None:
    text: Any = client.get(client.names.trace(run))
    return None if text is None else paths_in(text, f"{client.names.trace(run)} in Redis")


def _is_meant(path: dict[str, Any], word: str) -> bool:
    if str(path["number"]) == word:
        return True
    ids = {path["origin"], *(hop["message"] for hop in path["hops"])}
    return word in ids or (len(word) >= 4 and any(each.startswith(word) for each in ids))


def _unknown(word: str, paths: list[dict[str, Any]]) -> str:
    if not paths:
        return f"nothing is kept of message {word!r}: no message is through a node so far"
    there = ", ".join(str(path["number"]) if path["number"] >= 0 else path["origin"] for path in paths[:10])
    return (
        f"nothing is kept of message {word!r}: only the slowest and those that failed are, such as {there}; "
        "--slowest N shows the slowest"
    )


def waterfall(path: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one path."""
    whole, began = max(path["seconds"], 1e-9), path["began"]
    number = f" (number {path['number']})" if path["number"] >= 0 else ""
    yield f"message {path['origin']}{number}: {_seconds(path['seconds'])}"
    for hop in path["hops"]:
        worker = Holder.read(hop["worker"]).process
        where = f" {worker.where}" if worker.pid else ""
        outcome = "" if hop["outcome"] == "done" else f" {hop['outcome']}"
        yield f"  {hop['node']}: {_seconds(hop['seconds'])}{outcome}{where}"
        for each in hop["attempts"]:
            place = Holder.read(each["worker"]).process
            yield f"    attempt failed after {_seconds(each['at'] - hop['came'])}: {each['error']}" + (
                f" {place.where if place.pid else each['worker']}" if each["worker"] else ""
            )
        at = hop["came"] - began
        for name, seconds in hop["parts"].items():
            if seconds >= 0.0005 or (name == "run" and hop["outcome"] != "cached"):
                yield f"    {name:<9}{_seconds(seconds):>9} {_bar(name, at / whole, seconds / whole)}".rstrip()
            at += seconds


def _bar(name: str, begin: float, length: float) -> str:
    first = min(BARS - 1, round(begin * BARS))
    return " " * first + MARKS[name] * max(1, min(BARS - first, round(length * BARS)))


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.1f} ms"


@click.command("replay-hop")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("node")
@click.argument("message")
@SET
@JSON
def replay_hop(folder: Path, node: str, message: str, values: tuple[str, ...], as_json: bool) -> None:
    """Run one node once, here, on what it got in a recorded run: FOLDER of `celerypipe run --record FOLDER`.

    MESSAGE is the number that the source gave it, its id, or the beginning of that. The node runs in this process and
    this terminal, warped or not, without a timeout, so that breakpoint() in its update() works. Then what comes out is
    printed, and what is different from the recording. What a stateful node remembered is not recorded.

    Exit status: 0 the same came out as in the recorded run; 1 something else did, or it raised; 2 there is no such node
    or message.
    """
    told = about(folder)
    overrides = Overrides.read(values)
    pipeline = Pipeline.from_dict(overrides.applied({**told["pipeline"], "plugins": told["plugins"]}), folder)
    names = [each.name for each in pipeline.nodes]
    if node not in names:
        hint = did_you_mean(node, names)
        raise ConfigError(f"there is no node {node!r} in this run{hint}; there are {', '.join(names)}")
    before = hop_in(folder, node, message)
    sys.path.insert(0, told["cwd"])
    instance = instance_of(pipeline, node, Settings.from_environment().plugins)
    instance.warm()
    try:
        outputs = instance.update(before.message)
        error = ""
    except Exception as raised:  # noqa: BLE001  # user code; its traceback is what is wanted
        outputs, error = [], brief(raised)
        click.echo(harmless(trace_of(raised)), err=True)
    finally:
        instance.destroy()
    same = error == before.error if error or before.error else alike(outputs, before.outputs or ())
    if as_json:
        shown = {"outputs": [content_of(each) for each in outputs], "error": error, "same": same}
        click.echo(json.dumps({**shown, "recorded_error": before.error}, indent=2, ensure_ascii=False))
    else:
        for line in _compared(outputs, error, before, same=same):
            click.echo(harmless(line))
    sys.exit(Ending.DONE if same else Ending.FAILED)


def _compared(outputs: Sequence[Message], error: str, before: RecordedHop, *, same: bool) -> Iterator[str]:
    for number, each in enumerate(outputs, 1):
        yield f"output {number}: {json.dumps((content_of(each) or {}).get('payload'), ensure_ascii=False)}"
    if error:
        yield f"it raised {error}"
    elif not outputs:
        yield "nothing came out"
    if same:
        yield "the same as in the recorded run"
        return
    if before.error:
        yield f"in the recorded run it failed: {before.error}"
    elif before.outputs is None:
        yield "the recorded run ended before anything came out"
    else:
        yield f"in the recorded run {len(before.outputs)} came out:"
        for number, each in enumerate(before.outputs, 1):
            yield f"output {number}: {json.dumps((content_of(each) or {}).get('payload'), ensure_ascii=False)}"
