"""``celerypipe nodes``: what marks there are, and what they take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from celerypipe.catalogue.arguments import Argument
from celerypipe.catalogue.catalogue import Catalogue, Listing
from celerypipe.catalogue.plugin import absence
from celerypipe.check.complaints import is_known_here
from celerypipe.cli.options import ALLOW, PLUGINS
from celerypipe.definition.file import STDIN, SUFFIXES
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import ConfigError, UnknownMark
from celerypipe.folders import path_of
from celerypipe.settings import Settings

#: Columns from which on the nodes are shown as a table: below, it would have to break words.
ROOMY = 110


@click.command()
@click.argument("words", metavar="[PIPELINE] [MARK]", nargs=-1)
@PLUGINS
@ALLOW
@click.option("--json", "as_json", is_flag=True, help="Print the schemas of the nodes as JSON.")
def nodes(words: tuple[str, ...], folders: tuple[Path, ...], allow: tuple[Path, ...], as_json: bool) -> None:
    """List the available nodes: built in, installed, and in plugin folders.

    PIPELINE, a JSON or YAML file, adds its plugin folders and the nodes that it uses. MARK, a short name or a dotted
    path, shows one node in detail.
    """
    file, mark = _told_apart(words)
    pipeline = Pipeline.load(file, allow) if file is not None else None
    own = pipeline.plugin_folders if pipeline else ()
    catalogue = Catalogue([*own, *map(path_of, folders), *Settings.from_environment().plugins])
    refused: list[ConfigError] = []
    listings = _named(catalogue, mark) if mark else _all(catalogue, pipeline, refused)
    if as_json:
        schemas = [{**listing.schema(), "origin": listing.origin} for listing in listings]
        click.echo(json.dumps(schemas, indent=2, ensure_ascii=False))
    else:
        console = Console()
        console.print(_details(listings) if mark else _table(listings, console))
    for text in filter(None, map(absence, catalogue.plugins)):
        click.echo(f"note: {text}", err=True)
    for error in refused:
        click.echo(f"left out: {error}", err=True)


def _told_apart(words: Sequence[str]) -> tuple[Path | None, str | None]:
    """A word that ends as a pipeline file does, holds a slash or is a dash is a file: no mark is."""
    files = [word for word in words if Path(word) == STDIN or Path(word).suffix in SUFFIXES or "/" in word]
    marks = [word for word in words if word not in files]
    if len(files) > 1 or len(marks) > 1:
        raise click.UsageError("give at most one PIPELINE, a .json or .yaml file, and one MARK")
    return (Path(files[0]) if files else None), (marks[0] if marks else None)


def _named(catalogue: Catalogue, mark: str) -> list[Listing]:
    """The nodes of one mark; a source and a sink may share it."""
    if "." in mark:
        return [catalogue.find(mark)]
    found = [listing for listing in catalogue.listings([]) if listing.mark == mark]
    return found or [catalogue.find(mark)]


def _all(catalogue: Catalogue, pipeline: Pipeline | None, refused: list[ConfigError]) -> list[Listing]:
    """Every short mark, and the dotted ones that a pipeline runs here; its warped nodes are their workers' to know."""
    found = {(listing.type, listing.mark): listing for listing in catalogue.listings(refused)}
    for node in pipeline.nodes if pipeline else ():
        if (node.type, node.mark) in found or not is_known_here(node, catalogue):
            continue
        try:
            listing = catalogue.find(node.mark, node.type)
            found[listing.type, listing.mark] = listing
        except UnknownMark as error:
            refused.append(error)
        except ConfigError as error:
            # A plugin that does not import is among the refused already.
            if str(error) not in map(str, refused):
                refused.append(error)
    return list(found.values())


def _table(listings: Sequence[Listing], console: Console) -> Table | Group:
    """A line each where there is room; else what a node takes and does stands below its mark."""
    table = Table("mark", "type", "arguments", "what it does", box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    below: list[Text | Padding] = []
    for listing in sorted(listings, key=lambda listing: (("source", "proc", "sink").index(listing.type), listing.mark)):
        arguments = ", ".join(map(str, listing.arguments())) + (", ..." if listing.open else "")
        about = listing.doc if listing.origin == "built-in" else f"{listing.doc} [{listing.origin}]".strip()
        table.add_row(Text(listing.mark), listing.type, Text(arguments), Text(about))
        below.append(Text.assemble((listing.mark, "bold"), f" ({listing.type})"))
        below += [Padding(Text(text), (0, 0, 0, 2)) for text in (about, arguments) if text]
    return table if console.width >= ROOMY else Group(*below)


def _details(listings: Sequence[Listing]) -> Table:
    grid = Table.grid()
    for listing in listings:
        state = (", stateful" if listing.node.stateful else "") + (", writable" if listing.node.writable else "")
        version = f", version {listing.node.version}" if listing.node.version else ""
        grid.add_row(Text(f"{listing.mark}: {listing.type}{state}{version} ({listing.origin})", style="bold"))
        grid.add_row(Text(listing.doc))
        table = Table("argument", "type", "default", "meaning", box=None, header_style="bold")
        meanings = listing.meanings()
        for argument in listing.arguments():
            words = argument.name, argument.annotation, _default(argument), meanings.get(argument.name, "")
            table.add_row(*map(Text, words))
        if listing.open:
            table.add_row("...", "", "any others")
        grid.add_row(table if table.rows else Text("  takes no arguments"))
        grid.add_row("")
    return grid


def _default(argument: Argument) -> str:
    return "required" if argument.required else repr(argument.default)
