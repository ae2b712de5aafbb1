"""Pipelines of the tests' nodes on workers, to be fed and read from code."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from celerypipe import Message, Pipeline
from celerypipe.definition.pipeline import NodeDefinition

#: Bytes of a large payload: it lies apart from its message.
SIZE = 300_000


def warped(mark: str, queue: str, *, configuration: dict[str, Any] | None = None, **options: Any) -> Pipeline:
    """One warped node."""
    limits = {"queue": queue, **options.pop("limits", {})}
    folder = options.pop("folder", None)
    node = NodeDefinition(
        name="there",
        type="proc",
        mark=mark,
        configuration=configuration or {},
        warped=True,
        warp_configuration=limits,
        **options,
    )
    return Pipeline(name="test", nodes=[node], links=[], folder=folder)


def summing(queue: str, node: str = "RunningSum", **options: Any) -> Pipeline:
    """A node that adds up, or another stateful one."""
    return warped(f"tests.nodes.stateful.{node}", queue, **options)


def chain(
    queue: str, *stages: str | tuple[str, dict[str, Any]], before: tuple[NodeDefinition, ...] = (), **options: Any
) -> Pipeline:
    """Warped nodes n0, n1, … in a row: the mark of each, or mark and limits; options of the node by its name."""
    nodes = [
        NodeDefinition(
            name=f"n{number}",
            type="proc",
            mark=f"tests.nodes.remote.{mark}",
            warped=True,
            warp_configuration={"queue": queue, **limits},
            **options.get(f"n{number}", {}),
        )
        for number, (mark, limits) in enumerate((each, {}) if isinstance(each, str) else each for each in stages)
    ]
    every = [*before, *nodes]
    links = [(one.name, other.name) for one, other in pairwise(every)]
    return Pipeline(name="chain", nodes=every, links=links, folder=options.get("folder"))


def frames(count: int, size: int = SIZE) -> Iterator[Message]:
    """Messages with an array of bytes each, full of its number."""
    for number in range(count):
        yield Message(np.full(size, number % 100, np.uint8))
