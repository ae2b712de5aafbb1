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
        is_asked = not no_input and all(each.isatty() for each in (sys.stdin, sys.stdout, sys.stderr))
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
    here = Path(sys.executable)
    python = shlex.quote(str(here))
    is_found = {name: shutil.which(name) == str(here.with_name(name)) for name in ("pip", "celerypipe")}
    if find_spec("pip") is None:  # an environment that uv made
        install = "uv pip install" if is_found["celerypipe"] else f"uv pip install --python {python}"
    else:
        install = "pip install" if is_found["pip"] else f"{python} -m pip install"
    program = "celerypipe" if is_found["celerypipe"] else f"{python} -m celerypipe"
    return f"{install} -e '.[dev]'", f"{program} run pipeline.json"
