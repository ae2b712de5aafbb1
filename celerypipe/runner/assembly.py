"""Putting a run together: a station for each node, joined as the links say."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from celerypipe.catalogue.catalogue import Catalogue, Listing
from celerypipe.catalogue.instance import Instance
from celerypipe.catalogue.outline import Outline
from celerypipe.check.complaints import is_known_here, outline_here
from celerypipe.contract.contract import Sink
from celerypipe.definition.environment import resolve_environment, secrets_in
from celerypipe.definition.graph import Graph
from celerypipe.definition.pipeline import Link, NodeDefinition, Pipeline
from celerypipe.mailbox.record import SILENT, Record
from celerypipe.message.message import Message
from celerypipe.runner.carrier.carrier import RedisCarrier
from celerypipe.runner.carrier.loopback import Loopback
from celerypipe.runner.stations.backlog import MESSAGES
from celerypipe.runner.stations.cache import RunCache
from celerypipe.runner.stations.course import Course
from celerypipe.runner.stations.join import join_of
from celerypipe.runner.stations.local import LocalStation
from celerypipe.runner.stations.places import Places, has_places
from celerypipe.runner.stations.reader import Outflow
from celerypipe.runner.stations.source import SourceStation
from celerypipe.runner.stations.station import Outlet, Station
from celerypipe.runner.warp.carriage import Carrier
from celerypipe.runner.warp.downstream import Downstream
from celerypipe.runner.warp.lookup import CacheLookup
from celerypipe.runner.warp.warp import Warp


class Assembly:
    """The stations of one run, and the loopbacks of those that are warped and run here.

    ``carrier`` None: warped nodes run here, through the codec. ``adds``: to what another run wrote.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        catalogue: Catalogue,
        course: Course,
        *,
        graph: Graph,
        carrier: RedisCarrier | None,
        cache: RunCache,
        adds: bool,
    ) -> None:
        self.pipeline = pipeline
        self.catalogue = catalogue
        self.course = course
        self.graph = graph
        self.carrier = carrier
        self.cache = cache
        self.adds = adds
        self.stations: dict[str, Station] = {}
        self.loopbacks: list[Loopback] = []

    def make(self, names: Collection[str]) -> None:
        """Make the stations of these nodes, and join them."""
        for name in self.graph.order:
            if name in names:
                self.stations[name] = self._station(self.pipeline.node(name))
        self._connect()

    def configuration(self, node: NodeDefinition, *, again: bool = False) -> dict[str, Any]:
        """A node's arguments; ``again``: it takes the place of one that hung."""
        outline = outline_here(node, self.catalogue, local=self.carrier is None)
        resolved = _resolved(self.pipeline, node, outline)
        self.course.secrets |= secrets_in(node.configuration, os.environ, node.from_environment)
        if (again or self.adds) and outline is not None and outline.default("append") is False:
            resolved["append"] = True  # a file sink that empties its file would lose what was written before
        return resolved

    def listing(self, node: NodeDefinition) -> Listing:
        """Return the class of a node, with the reach of this pipeline."""
        return _listing(self.pipeline, node, self.catalogue)

    def _station(self, node: NodeDefinition) -> Station:
        made = itertools.count()

        def make() -> Instance:
            folder = self.course.folder.of(node.name) if self.course.folder else None
            configuration = self.configuration(node, again=next(made) > 0)
            return Instance(self.listing(node), configuration, name=node.name, folder=folder)

        if node.type == "source":
            return SourceStation(self.course, node, make)
        if not node.warped:
            cache = self.cache.of(node, lambda: self.listing(node).schema(), lambda: self.configuration(node))
            return LocalStation(self.course, node, make, cache)
        if self.carrier is not None:
            return self._warp(node, self.carrier)
        loopback = Loopback(self.course, node.name, make)
        self.loopbacks.append(loopback)
        return self._warp(node, loopback)

    def _warp(self, node: NodeDefinition, carrier: Carrier[Warp]) -> Warp:
        cache = self.cache.of_warped(node, lambda: self.listing(node).schema(), lambda: self.configuration(node))
        lookup = CacheLookup(cache, self.cache.unknown) if cache is not None else None
        warp = Warp(self.course, node, carrier, Downstream(), lookup)
        if node.type == "sink" and is_known_here(node, self.catalogue, local=self.carrier is None):
            warp.places = self._places(node)
        return warp

    def _places(self, node: NodeDefinition) -> Places | None:
        """Where a warped sink writes, told by one that is only made."""
        listing = self.listing(node)
        if not has_places(listing.node):
            return None
        sink = listing.create(self.configuration(node), name=node.name)
        return Places(node.name, lambda: sink, self.course.taken) if isinstance(sink, Sink) else None

    def _connect(self) -> None:
        """Join the stations as the links say."""
        capacity = sum(self._window(station.node) + MESSAGES for station in self.stations.values())
        for name, station in self.stations.items():
            links = self.graph.upstream(name)
            station.open_links = {link.source for link in links if link.source in self.stations}
            for link in links:
                if link.source in self.stations:
                    self.stations[link.source].outlets.append(Outlet(link, station))
            if len(links) > 1:
                next_batch = None
                if isinstance(station, LocalStation) and hasattr(station.instance.listing.node, "next_batch"):
                    next_batch = station.next_batch
                names = [link.source for link in links]
                followers = self.course.followers
                station.join = join_of(station.node.sync, name, names, capacity, next_batch, followers)

    @staticmethod
    def _window(node: NodeDefinition) -> int:
        return node.warp_configuration.window if node.warped else MESSAGES

    def add_feed(self, feed: Iterable[Message], heads: tuple[str, ...]) -> Outflow:
        """Feed these nodes from code, and let what comes out of the last ones be read there."""
        outflow = Outflow(self.course, NodeDefinition(name="(reader)", type="sink", mark="reader"))
        for name, station in list(self.stations.items()):
            if not station.outlets and station.node.type != "sink":
                link = Link(source=name, target="(reader)")
                station.outlets.append(Outlet(link, outflow))
                outflow.open_links.add(name)
        if self.adds:
            feed = ()  # dead letters are, instead
        feeder = SourceStation(self.course, NodeDefinition(name="(inputs)", type="source", mark="feed"), None, feed)
        for name in heads:
            feeder.outlets.append(Outlet(Link(source="(inputs)", target=name), self.stations[name]))
            self.stations[name].open_links.add("(inputs)")
        self.stations["(inputs)"] = feeder
        if not outflow.open_links:
            outflow.drained()  # every end is a sink: there is nothing to read
        return outflow

    def record(self, warp: Warp) -> Record:
        """Return what activations are told about a warped node."""
        node = warp.node
        return record_of(
            node,
            configuration=self.configuration(node),
            rooms=sum(self._window(other) for other in self.pipeline.nodes if other.warped),
            budget=self.carrier.budget if self.carrier else 0,
            neighbours=self._neighbours(node),
            onward=warp.onward.name if warp.onward is not None else "",
            level=self.carrier.level if self.carrier else SILENT,
            secrets=sorted(self.course.secrets),
        )

    def _neighbours(self, node: NodeDefinition) -> Iterator[str]:
        """The warped nodes on the same queue, upstream ones first."""
        for name in self.graph.order:
            other = self.pipeline.node(name)
            if other.warped and other.queue == node.queue and name in self.stations:
                yield name


def instance_of(pipeline: Pipeline, name: str, plugins: Sequence[Path] = ()) -> Instance:
    """Return a node of a pipeline as it would run here, not warm yet."""
    catalogue = Catalogue((*pipeline.plugin_folders, *plugins))
    node = pipeline.node(name)
    resolved = _resolved(pipeline, node, outline_here(node, catalogue, local=True))
    return Instance(_listing(pipeline, node, catalogue), resolved, name=name)


def _resolved(pipeline: Pipeline, node: NodeDefinition, outline: Outline | None) -> dict[str, Any]:
    """A node's arguments, with what the environment says."""
    place = f"pipeline.nodes[{pipeline.nodes.index(node)}].configuration"
    kinds = outline.scalars() if outline else {}
    return resolve_environment(node.configuration, os.environ, place, kinds, node.from_environment)


def _listing(pipeline: Pipeline, node: NodeDefinition, catalogue: Catalogue) -> Listing:
    """Its class, with the reach of the pipeline."""
    return replace(catalogue.find(node.mark, node.type), reach=pipeline.reach)


def record_of(
    node: NodeDefinition,
    *,
    configuration: dict[str, Any] | None,
    rooms: int,
    budget: int,
    neighbours: Iterable[str],
    onward: str = "",
    level: int = SILENT,
    secrets: Iterable[str] = (),
) -> Record:
    """Return what activations are told about a warped node."""
    limits = node.warp_configuration
    return Record(
        mark=node.mark,
        configuration=configuration,
        timeout=node.timeout,
        linger=limits.linger,
        slice=limits.slice,
        term=limits.term,
        room=rooms,
        budget=budget,
        parallel=limits.parallel,
        neighbours=tuple(neighbours),
        onward=onward,
        compression=limits.compression,
        batch=limits.batches.size,
        wait=limits.batches.wait,
        pinned=limits.pinned,
        console=node.console,
        level=level,
        secrets=tuple(secrets),
    )
