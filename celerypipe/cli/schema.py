"""``celerypipe schema``: the JSON Schema of a definition, for editors."""

from __future__ import annotations

import json

import click

from celerypipe.definition.pipeline import json_schema


@click.command()
def schema() -> None:
    """Print the JSON Schema of a pipeline.

    An editor that knows it completes keys and underlines mistakes: save it, and name it in the pipeline's "$schema".
    """
    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
