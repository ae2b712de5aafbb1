"""The two definitions of an example, one in JSON and one in Python."""

from __future__ import annotations

import runpy
from pathlib import Path

from celerypipe.definition.pipeline import Pipeline


def both_twins(example: Path) -> tuple[Pipeline, Pipeline]:
    """Return the one of ``pipeline.json``, and that of ``pipeline.py``."""
    in_python: Pipeline = runpy.run_path(str(example / "pipeline.py"))["pipeline"]
    return Pipeline.load(example / "pipeline.json"), in_python


def said(pipeline: Pipeline) -> tuple[object, ...]:
    """What a definition says, but for its own version, and its folders, which each names from where it is read."""
    return pipeline.name, pipeline.id, pipeline.nodes, pipeline.links
