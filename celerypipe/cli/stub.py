"""``celerypipe stub``: a node of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from celerypipe.catalogue.plugin import TYPES
from celerypipe.scaffold.stub import Stub, fits_plugins


@click.command()
@click.argument("name")
@click.option("--type", "kind", type=click.Choice(TYPES), required=True, help="What kind of node it is.")
@click.option("--queue", metavar="QUEUE", default="", help="The queue whose workers run it. Default: NAME.")
@click.option(
    "--plugin/--task",
    default=None,
    help="A folder in plugins/ (juturna's layout), or a module in tasks/. Default: plugins/ where it is and "
    "tasks/ is not, else tasks/.",
)
def stub(name: str, kind: str, queue: str, plugin: bool | None) -> None:
    """Write a new node into the project in this folder, and its test.

    NAME has letters from a to z, digits, '-' and '_'. The class goes into tasks/QUEUE.py, or into tasks/NAME.py if
    that is there already. No file is overwritten.
    """
    here = Path.cwd()
    written = Stub(name, kind, queue, fits_plugins(here) if plugin is None else plugin).write(here)
    for path in written.files:
        click.echo(path)
    click.echo(f"\nIn a pipeline:\n\n  {written.definition}\n\nTest it:\n\n  pytest {written.test}")
    if written.hint:
        click.echo(f"\nSo that workers of the queue serve it, write {written.hint}")
