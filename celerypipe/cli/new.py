"""``celerypipe new``: a project of one's own."""

from __future__ import annotations

import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from celerypipe.scaffold.example import EXAMPLES
from celerypipe.scaffold.project import check_place, make

#: What it begins with where nobody can be asked, and what is proposed to somebody who can.
UNASKED, PROPOSED = "empty", "speech"


@click.command()
@click.argument("name")
@click.option(
    "--example",
    type=click.Choice(list(EXAMPLES)),
    help=f"What the project begins with. Default: asks, on a terminal; else {UNASKED}.",
)
@click.option("--no-input", is_flag=True, help=f"Ask nothing; without --example the project begins with {UNASKED}.")
def new(name: str, example: str | None, no_input: bool) -> None:
    """Make a project in a new folder NAME: a pipeline that runs, nodes, tests.

    NAME has letters from a to z, digits, '-' and '_'. A folder of that name must be empty. Nothing is downloaded.
    """
    here = Path.cwd()
    check_place(name, within=here)
    if example is None:
        is_asked = not no_input and sys.stdin.isatty() and sys.stdout.isatty()
        example = _asked() if is_asked else UNASKED
    make(name, example, within=here)
    click.echo(f"{name}/ is a project that begins with {example!r}. Next:\n")
    for command in (f"cd {name}", *_commands()):
        click.echo(f"  {command}")
    click.echo(f"\n{name}/README.md says more.")


def _asked() -> str:
    for word, each in EXAMPLES.items():
        click.echo(f"  {word:8} {each.about}")
    try:
        answer: str = click.prompt("Begin with", type=click.Choice(list(EXAMPLES)), default=PROPOSED)
    except click.Abort:
        raise KeyboardInterrupt from None
    return answer


def _commands() -> tuple[str, str]:
    """How to install and to run with this environment: by the short names, if those are what a shell finds."""
    here = shlex.quote(sys.executable)
    is_found = shutil.which("celerypipe") == str(Path(sys.executable).with_name("celerypipe"))
    if find_spec("pip") is None:  # an environment that uv made
        install = "uv pip install" if is_found else f"uv pip install --python {here}"
    else:
        install = (
            "pip install"
            if shutil.which("pip") == str(Path(sys.executable).with_name("pip"))
            else f"{here} -m pip install"
        )
    return f"{install} -e '.[dev]'", f"{'celerypipe' if is_found else f'{here} -m celerypipe'} run pipeline.json"
