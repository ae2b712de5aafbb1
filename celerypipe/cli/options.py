"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

ALLOW = click.option(
    "--allow",
    multiple=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="A folder that the pipeline may read and write besides its own; may be given several times.",
)
