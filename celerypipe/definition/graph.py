"""The graph: the order that a pipeline's links allow, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from celerypipe.definition.pipeline import Link, Pipeline
from celerypipe.errors import Complaint, DefinitionError, did_you_mean, nearest


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by name, each after all that send to it.

    ``layers`` are nodes that wait for nothing but earlier layers; ``order`` is the layers one after another. Within a
    layer the nodes stand as in the definition, so that one definition has one order.
    """

    layers: tuple[tuple[str, ...], ...]
    links: tuple[Link, ...]

    @classmethod
    def of(cls, pipeline: Pipeline, fed: Sequence[str] = ()) -> Graph:
        """Return the graph of a pipeline; :class:`DefinitionError` carries all that is wrong with its links.

        ``fed``: nodes that receive messages from code, and so need no link in.
        """
        found = complaints(pipeline, fed)
        if found:
            raise DefinitionError(found)
        return cls(tuple(_layers([node.name for node in pipeline.nodes], pipeline.links)), pipeline.links)

    @property
    def order(self) -> tuple[str, ...]:
        """All nodes, each after all that send to it."""
        return tuple(name for layer in self.layers for name in layer)

    @property
    def ends(self) -> tuple[str, ...]:
        """The nodes without links out, in order: what reaches them leaves the pipeline."""
        return tuple(name for name in self.order if not self.downstream(name))

    def upstream(self, name: str) -> tuple[Link, ...]:
        """The links into a node, as they stand in the definition."""
        return tuple(link for link in self.links if link.target == name)

    def downstream(self, name: str) -> tuple[Link, ...]:
        """The links out of a node, as they stand in the definition."""
        return tuple(link for link in self.links if link.source == name)


def heads_of(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the nodes that are fed from code, where a pipeline is: those that have no link in and are no source."""
    targets = {link.target for link in pipeline.links}
    return tuple(node.name for node in pipeline.nodes if node.type != "source" and node.name not in targets)


def reached(starts: Iterable[str], onward: Callable[[str], Iterable[str]]) -> frozenset[str]:
    """Return these nodes and all that ``onward`` leads to from them."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += onward(name)
    return frozenset(found)


def complaints(pipeline: Pipeline, fed: Sequence[str] = ()) -> list[Complaint]:
    """Return everything that is wrong with the links of a pipeline; an empty list when it has a graph.

    A name that is empty could not be read: it may be any that is missed elsewhere.
    """
    return [
        *_of_links(pipeline),
        *_of_types(pipeline),
        *_of_inputs(pipeline, fed),
        *_of_cycles(pipeline),
    ]


def _of_links(pipeline: Pipeline) -> Iterable[Complaint]:
    names = [node.name for node in pipeline.nodes]
    first: dict[tuple[str, str], int] = {}
    for index, link in enumerate(pipeline.links):
        place = f"pipeline.links[{index}]"
        for key, name in (("from", link.source), ("to", link.target)):
            if name and name not in names and "" not in names:
                cure = did_you_mean(name, names) or f"; there are {', '.join(names)}"
                yield Complaint(f"{place}.{key}", f"there is no node {name!r}{cure}")
        twin = first.setdefault((link.source, link.target), index)
        if twin != index and link.source and link.target:
            yield Complaint(place, f"{link} is links[{twin}] again; a message would arrive twice: remove one of them")


def _of_types(pipeline: Pipeline) -> Iterable[Complaint]:
    types = {node.name: node.type for node in pipeline.nodes if node.name in _unique(pipeline)}
    for index, link in enumerate(pipeline.links):
        if types.get(link.source) == "sink":
            text = f"{link.source!r} is a sink and sends nothing; make it a proc, or let the link begin before it"
            yield Complaint(f"pipeline.links[{index}].from", text)
        if types.get(link.target) == "source":
            text = f"{link.target!r} is a source and receives nothing; make it a proc, or let the link end after it"
            yield Complaint(f"pipeline.links[{index}].to", text)


def _of_inputs(pipeline: Pipeline, fed: Sequence[str]) -> Iterable[Complaint]:
    types = {node.name: node.type for node in pipeline.nodes}
    # A link to a name that is misspelt is complained about already.
    targets = {link.target if link.target in types else nearest(link.target, types) for link in pipeline.links}
    unread = any(not link.target for link in pipeline.links)
    for index, node in enumerate(pipeline.nodes if not unread else ()):
        if node.type in ("proc", "sink") and node.name and node.name not in (*targets, *fed):
            text = f'the {node.type} {node.name!r} has no input; write a link: {{"from": ..., "to": "{node.name}"}}'
            yield Complaint(f"pipeline.nodes[{index}]", text)
    for name in fed:
        if name not in types:
            yield Complaint("pipeline.nodes", f"there is no node {name!r} to feed{did_you_mean(name, types)}")
        elif types[name] == "source":
            yield Complaint("pipeline.nodes", f"{name!r} is a source and cannot be fed; feed the node after it")


def _of_cycles(pipeline: Pipeline) -> Iterable[Complaint]:
    """One complaint a cycle: each is cut open where it closes, and then the rest is looked at again."""
    names = _unique(pipeline)
    links = [link for link in pipeline.links if link.source in names and link.target in names]
    while cycle := _cycle(names, links):
        text = f"{' → '.join(cycle)} is a cycle, in which messages would run round for ever; remove one of these links"
        yield Complaint("pipeline.links", text)
        links = [link for link in links if (link.source, link.target) != (cycle[-2], cycle[-1])]


def _unique(pipeline: Pipeline) -> list[str]:
    """The names by which it is known which node a link means."""
    names = [node.name for node in pipeline.nodes]
    return [name for name in names if name and names.count(name) == 1]


def _cycle(names: Sequence[str], links: Iterable[Link]) -> list[str]:
    """Return a cycle as a path that begins and ends with the node that was defined first; empty if there is none."""
    try:
        _sorter(names, links).prepare()
    except CycleError as error:
        ring = error.args[1][:-1]
        start = min(range(len(ring)), key=lambda index: names.index(ring[index]))
        return [*ring[start:], *ring[:start], ring[start]]
    return []


def _layers(names: Sequence[str], links: Iterable[Link]) -> Iterable[tuple[str, ...]]:
    sorter = _sorter(names, links)
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        yield tuple(sorted(ready, key=names.index))
        sorter.done(*ready)


def _sorter(names: Iterable[str], links: Iterable[Link]) -> TopologicalSorter[str]:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name in names:
        sorter.add(name)
    for link in links:
        sorter.add(link.target, link.source)
    return sorter
