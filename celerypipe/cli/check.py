"""``celerypipe check``: say everything that is wrong with a pipeline, without running it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.check import preflight
from celerypipe.check.complaints import absences, remarks
from celerypipe.check.complaints import check as complaints_of
from celerypipe.check.complaints import notes as notes_on
from celerypipe.check.finding import BYTE_BUDGET, Finding, Scene
from celerypipe.check.loading import load
from celerypipe.cli.endings import Ending, ending_of
from celerypipe.cli.options import ALLOW, PLACE, SET, named_redis, redis_option
from celerypipe.cli.screen.terminal import plural
from celerypipe.definition.overrides import Overrides
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import Complaint, ConfigError, DefinitionError, RedisUnavailable
from celerypipe.redis.address import Address
from celerypipe.redis.connection import connect, explained
from celerypipe.settings import RedisSettings, Settings

#: Seconds that Redis has for one answer: all of a look takes less than two.
PATIENCE = 1.0


@click.command()
@click.argument("pipeline", type=click.Path(allow_dash=True, path_type=Path))
@SET
@PLACE
@click.option("--local", is_flag=True, help="Check warped nodes as `run --local` would: their modules are imported.")
@ALLOW
@click.option("--live", is_flag=True, help="Check Redis and the workers too, as every run does first.")
@redis_option("none: --live needs one of them")
@click.option("--json", "as_json", is_flag=True, help="Print complaints, notes and findings as JSON.")
def check(
    pipeline: Path,
    values: tuple[str, ...],
    places: tuple[str, ...],
    local: bool,
    live: bool,
    redis: str | None,
    as_json: bool,
    allow: tuple[Path, ...],
) -> None:
    """Check PIPELINE, a JSON or YAML file, without running it; `-` reads it from standard input.

    The class of a warped node is not imported: its name and arguments are looked up in its source, if that is here.

    Nodes are not created, so what only a node can find out (a missing file, a port in use) is found by
    `celerypipe run`, before the first message.

    Nodes that get copies of their arrays (writable = True) are listed; all others get read-only arrays.

    --live also checks Redis and the workers, in less than two seconds: whether each queue has a worker, whether that
    worker knows the node in the same version with these arguments and can stop it at its timeout, and whether Redis has
    the memory and settings for it. Each finding says how to fix it. Errors stop a run before it starts; warnings are
    shown by `celerypipe run` too; notes are for information.

    Exit status: 0 ok, perhaps with warnings and notes; 2 something is wrong; 69 with --live: only Redis or a worker is
    missing.
    """
    definition, complaints, notes = _look(pipeline, allow, local=local, changes=(values, places))
    findings: list[Finding] | None = None
    seen: Scene | None = None
    named: RedisSettings | None = None
    if live and definition is not None and definition.warped:
        named = _named(redis)
        seen, findings = look_live(definition, named.or_default)
    elif live and definition is not None:
        notes.append("no node is warped: the run needs no Redis and no workers, and --live checks neither")
    if as_json:
        click.echo(_as_json(complaints, notes, findings, seen))
    else:
        _print(pipeline, complaints, notes)
        if findings is not None and named is not None:
            _print_live(named, findings, seen)
    error = preflight.error_of(findings or ())
    sys.exit(Ending.WRONG if complaints else ending_of(error) if error is not None else Ending.DONE)


def _print(pipeline: Path, complaints: Sequence[Complaint], notes: Sequence[str]) -> None:
    if complaints:
        click.echo(f"{pipeline}: {plural(len(complaints), 'complaint')}", err=True)
        for complaint in complaints:
            click.echo(f"  {complaint}", err=True)
    else:
        click.echo(f"{pipeline}: ok")
    for note in notes:
        click.echo(f"  note: {note}", err=bool(complaints))


def _named(redis: str | None) -> RedisSettings:
    found = named_redis(redis, tell=False)
    if found.address is None:
        raise ConfigError(
            "--live needs the address of Redis: --redis redis://host:6379/0, or CELERYPIPE_REDIS_URL (without it "
            "`celerypipe run` starts a temporary Redis and workers, and there is nothing to check before)"
        )
    return found


def _look(
    file: Path, allow: Iterable[Path], *, local: bool, changes: tuple[Iterable[str], Iterable[str]]
) -> tuple[Pipeline | None, Sequence[Complaint], list[str]]:
    plugins = Settings.from_environment().plugins
    try:
        pipeline = load(file, allow, plugins, local=local, overrides=Overrides.read(*changes))
    except DefinitionError as error:
        return None, error.complaints, []
    catalogue = _catalogue(pipeline)
    found = [*absences(pipeline, catalogue), *notes_on(pipeline, catalogue)]
    notes = [*found, *remarks(pipeline, catalogue, local=local)]
    return pipeline, complaints_of(pipeline, catalogue, local=local), notes


def _catalogue(pipeline: Pipeline) -> Catalogue:
    return Catalogue([*pipeline.plugin_folders, *Settings.from_environment().plugins])


def look_live(pipeline: Pipeline, address: Address) -> tuple[Scene | None, list[Finding]]:
    try:
        with explained(address), connect(address, name="celerypipe-preflight", timeout=PATIENCE) as client:
            keyring = Settings.from_environment().keyring
            seen = preflight.look(client, address, pipeline, _catalogue(pipeline), budget=BYTE_BUDGET, keyring=keyring)
    except RedisUnavailable as error:
        text, _, cure = str(error).partition("; ")
        return None, [Finding("error", "redis", "Redis", text, cure)]
    return seen, preflight.inspect(seen)


def _as_json(
    complaints: Sequence[Complaint], notes: Sequence[str], findings: Sequence[Finding] | None, seen: Scene | None
) -> str:
    result: dict[str, Any] = {
        "ok": not complaints and not _is_wrong(findings or ()),
        "complaints": [{"place": complaint.place, "text": complaint.text} for complaint in complaints],
        "notes": list(notes),
    }
    if findings is not None:
        result["findings"] = [asdict(finding) for finding in findings]
    if seen is not None:
        result["redis"] = {
            "url": seen.address.shown,
            "version": seen.server.get("redis_version", ""),
            "latency": round(seen.latency, 6),
            "clock": round(seen.offset, 3),
        }
        queues = {node.queue for node in seen.pipeline.warped}
        result["queues"] = {
            queue: {"workers": len(workers), "slots": sum(worker["slots"] for worker in workers)}
            for queue in sorted(queues)
            for workers in [seen.workers_of(queue)]
        }
    return json.dumps(result, indent=2, ensure_ascii=False)


def _print_live(named: RedisSettings, findings: Sequence[Finding], seen: Scene | None) -> None:
    """Print what was seen and what was found; errors go to standard error, as all that is wrong does."""
    click.echo(f"{named}: {_count(findings)}", err=_is_wrong(findings))
    for line in _seen(seen) if seen is not None else ():
        click.echo(f"  {line}")
    for finding in findings:
        wrong = finding.severity == "error"
        click.echo(f"  {finding.severity}: {finding.place}: {finding.text}", err=wrong)
        if finding.mend:
            click.echo(f"    to fix it: {finding.mend}", err=wrong)


def _seen(seen: Scene) -> Iterator[str]:
    version = seen.server.get("redis_version", "of unknown version")
    yield f"Redis {version}, {seen.latency * 1000:.2f} ms away"
    for queue in dict.fromkeys(node.queue for node in seen.pipeline.warped):
        workers = seen.workers_of(queue)
        hosts = ", ".join(dict.fromkeys(worker["host"] for worker in workers))
        slots = sum(worker["slots"] for worker in workers)
        where = f" on {hosts}" if hosts else ""
        yield f"queue {queue!r}: {plural(len(workers), 'worker')}, {plural(slots, 'slot')}{where}"


def _is_wrong(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _count(findings: Sequence[Finding]) -> str:
    counted = [(each, sum(finding.severity == each for finding in findings)) for each in ("error", "warning", "note")]
    return ", ".join(plural(count, severity) for severity, count in counted if count) or "ok"
