"""``celerypipe check``: say everything that is wrong with a pipeline, without running it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from celerypipe.catalogue import Catalogue
from celerypipe.check import check as complaints_of
from celerypipe.check import notes as notes_on
from celerypipe.errors import Complaint, DefinitionError
from celerypipe.pipeline import Pipeline
from celerypipe.settings import Settings


@click.command()
@click.argument("pipeline", type=click.Path(path_type=Path))
@click.option("--local", is_flag=True, help="Check warped nodes as `run --local` would: their modules are imported.")
@click.option(
    "--allow", multiple=True, type=click.Path(path_type=Path), help="A folder that PIPELINE may use besides its own."
)
@click.option("--json", "as_json", is_flag=True, help="Print the complaints and notes as JSON.")
def check(pipeline: Path, local: bool, as_json: bool, allow: tuple[Path, ...]) -> None:
    """Check PIPELINE, a JSON file, without running it.

    Nodes are not made: what only a node itself can know of its arguments (a file that must exist, a port that must be
    free) is found by `celerypipe run`, before anything runs.

    Exit status: 0 nothing is wrong (there may be notes), 2 something is.
    """
    complaints, notes = _look(pipeline, allow, local=local)
    if as_json:
        click.echo(_as_json(complaints, notes))
    elif complaints:
        click.echo(f"{pipeline}: {_count(complaints)}", err=True)
        for complaint in complaints:
            click.echo(f"  {complaint}", err=True)
    else:
        click.echo(f"{pipeline}: ok")
    if not as_json:
        for note in notes:
            click.echo(f"  note: {note}", err=bool(complaints))
    sys.exit(2 if complaints else 0)


def _look(file: Path, allow: Iterable[Path], *, local: bool) -> tuple[Sequence[Complaint], list[str]]:
    try:
        pipeline = Pipeline.load(file, allow)
    except DefinitionError as error:
        return error.complaints, []
    catalogue = Catalogue([*pipeline.plugin_folders, *Settings.from_environment().plugins])
    return complaints_of(pipeline, catalogue, local=local), notes_on(pipeline, catalogue)


def _as_json(complaints: Sequence[Complaint], notes: Sequence[str]) -> str:
    found = [{"place": complaint.place, "text": complaint.text} for complaint in complaints]
    return json.dumps({"ok": not complaints, "complaints": found, "notes": list(notes)}, indent=2, ensure_ascii=False)


def _count(complaints: Sequence[Complaint]) -> str:
    return "1 complaint" if len(complaints) == 1 else f"{len(complaints)} complaints"
