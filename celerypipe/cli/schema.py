"""``celerypipe schema``: the JSON Schema of a definition, for editors."""

from __future__ import annotations

import json
from pathlib import Path

import click

from celerypipe.catalogue.catalogue import Catalogue
from celerypipe.catalogue.plugin import absence
from celerypipe.check.schema import schema_with_nodes
from celerypipe.cli.options import PLUGINS
from celerypipe.errors import ConfigError
from celerypipe.folders import path_of
from celerypipe.settings import Settings


@click.command()
@PLUGINS
def schema(folders: tuple[Path, ...]) -> None:
    """Print the JSON Schema of a pipeline.

    An editor that knows it completes keys and the arguments of nodes, and underlines mistakes: save it, and name it in
    the pipeline's "$schema". It knows the nodes that `celerypipe nodes` lists; other nodes take any arguments.
    """
    catalogue = Catalogue([*map(path_of, folders), *Settings.from_environment().plugins])
    refused: list[ConfigError] = []
    click.echo(json.dumps(schema_with_nodes(catalogue, refused), indent=2, ensure_ascii=False))
    for text in filter(None, map(absence, catalogue.plugins)):
        click.echo(f"note: {text}", err=True)
    for error in refused:
        click.echo(f"left out: {error}", err=True)
