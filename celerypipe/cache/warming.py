"""Warming the result cache: the part of a pipeline that fills it."""

from __future__ import annotations

from celerypipe.definition.graph import reached
from celerypipe.definition.pipeline import Pipeline
from celerypipe.errors import ConfigError


def up_to_cached(pipeline: Pipeline) -> Pipeline:
    """Return the nodes with a cache and all before them, without sinks and without a folder to write to.

    A later run of the whole pipeline finds their results. :class:`ConfigError` if there are none.
    """
    senders: dict[str, list[str]] = {}
    for link in pipeline.links:
        senders.setdefault(link.target, []).append(link.source)
    cached = [node.name for node in pipeline.nodes if node.cache is not None]
    if not cached:
        raise ConfigError(f'no node of pipeline {pipeline.name!r} has a cache to fill; write "cache": true into one')
    wanted = reached(cached, lambda name: senders.get(name, ()))
    nodes = tuple(
        node.model_copy(update={"auto_dump": False}) if node.auto_dump else node
        for node in pipeline.nodes
        if node.name in wanted
    )
    links = tuple(link for link in pipeline.links if link.source in wanted and link.target in wanted)
    return pipeline.model_copy(update={"nodes": nodes, "links": links, "folder": None, "telemetry": None})
