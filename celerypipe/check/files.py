"""Files of JSON lines that several nodes of a pipeline, or several processes, have in hand at one time."""

from __future__ import annotations

import os
from collections.abc import Iterator

from celerypipe.definition.environment import resolve_environment
from celerypipe.definition.pipeline import NodeDefinition, Pipeline
from celerypipe.errors import Complaint, DefinitionError

MARK = "json_lines"


def of_files(pipeline: Pipeline) -> Iterator[Complaint]:
    """Complain about each sink that would empty what another node of the pipeline reads or writes."""
    known: dict[str, NodeDefinition] = {}
    nodes = [(index, node) for index, node in enumerate(pipeline.nodes) if node.mark == MARK]
    for index, node in sorted(nodes, key=lambda each: each[1].type == "sink"):
        place = f"pipeline.nodes[{index}].configuration"
        file, appends = _file(node)
        other = known.setdefault(file, node) if file else node
        if node.type != "sink" or other is node:
            continue
        if other.type == "source":
            yield Complaint(f"{place}.path", f"is what {other.name!r} reads; write another file")
        elif not (appends and _file(other)[1]):
            text = f'is what {other.name!r} writes too; write another file, or "append": true in both'
            yield Complaint(f"{place}.path", text)


def emptied_elsewhere(node: NodeDefinition) -> bool:
    """Does each process that serves this warped node begin by emptying its file?"""
    return node.mark == MARK and node.type == "sink" and not _file(node)[1]


def _file(node: NodeDefinition) -> tuple[str, bool]:
    """The file of a node, links followed, and whether it appends; no file if that is no plain one, or not known yet."""
    defaults = {"path": "", "append": False}
    given = {name: node.configuration[name] for name in defaults if name in node.configuration}
    try:
        found = {**defaults, **resolve_environment(given, os.environ, "", {"append": bool}, given)}
        path = os.path.realpath(found["path"]) if found["path"] not in ("", "-") else ""
    except (DefinitionError, TypeError, ValueError, OSError):  # said elsewhere
        return "", False
    return "" if os.path.exists(path) and not os.path.isfile(path) else path, found["append"] is True
