"""All that can be said about a pipeline before it runs: complaints that stop it, notes that do not."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from celerypipe.catalogue.catalogue import Catalogue, built_in_marks
from celerypipe.catalogue.outline import Outline, not_awaited
from celerypipe.catalogue.plugin import absence
from celerypipe.check.demands import WRITES, cannot_keep, demands
from celerypipe.check.files import emptied_elsewhere, of_files
from celerypipe.check.installed import unmet
from celerypipe.codec import files_in
from celerypipe.contract.moving import how_to_move, is_only_here
from celerypipe.definition import graph
from celerypipe.definition.environment import resolve_environment
from celerypipe.definition.parts import home_of
from celerypipe.definition.pipeline import NodeDefinition, Pipeline
from celerypipe.errors import CodecError, Complaint, ConfigError, DefinitionError, UnknownMark, did_you_mean
from celerypipe.mailbox.blob import packing

SYNCS = ("passthrough", "local", "zip", "latest")
SYNCS_WITH_VALUE = ("key", "within")


def check(
    pipeline: Pipeline,
    catalogue: Catalogue | None = None,
    *,
    local: bool = False,
    fed: Sequence[str] = (),
) -> list[Complaint]:
    """Return everything that is wrong with a pipeline, links first, then node by node.

    The module of a warped node is never imported, unless ``local`` says that warped nodes run here too: what its
    class takes is read from its source, if that is here. ``fed``: nodes that receive messages from code.
    """
    known = catalogue or Catalogue(pipeline.plugin_folders)
    found = [*graph.complaints(pipeline, fed), *of_files(pipeline)]
    for index, node in enumerate(pipeline.nodes):
        place = f"pipeline.nodes[{index}]"
        outline: Outline | None = None
        try:
            outline = outline_here(node, known, local=local) if node.mark else None
        except ConfigError as error:
            if str(node.type) or isinstance(error, UnknownMark):  # else one of several types is meant
                found.append(Complaint(f"{place}.mark", str(error)))
        found += _of_node(node, place, local=local)
        found += _of_class(node, place, outline) if outline else ()
        found += _of_arguments(node, f"{place}.configuration", outline)
    return found


def require(
    pipeline: Pipeline,
    catalogue: Catalogue | None = None,
    *,
    local: bool = False,
    fed: Sequence[str] = (),
) -> None:
    """Raise :class:`DefinitionError` with everything that :func:`check` finds; nothing found: return."""
    found = check(pipeline, catalogue, local=local, fed=fed)
    if found:
        raise DefinitionError(found)


def notes(pipeline: Pipeline, catalogue: Catalogue | None = None) -> list[str]:
    """Return what looks unintended but runs, one sentence each."""
    known = catalogue or Catalogue(pipeline.plugin_folders)
    senders = {link.source for link in pipeline.links}
    found: list[str] = []
    for index, node in enumerate(pipeline.nodes):
        place = f"pipeline.nodes[{index}]"
        if node.type != "sink" and node.name not in senders:
            found.append(
                f"{place}: what {node.name!r} sends goes nowhere; link it to a node, or read it with Runner.stream"
            )
        found += _notes_of_warped(node, place, known) if node.warped else _notes_of_local(node, place, known)
    return found


def absences(pipeline: Pipeline, catalogue: Catalogue) -> list[str]:
    """Return a sentence for each plugin folder that is not there; a runner says them by itself."""
    own = set(pipeline.plugin_folders)
    return [
        f"{'plugins' if folder in own else 'CELERYPIPE_PLUGINS'}: {text}"
        for folder in catalogue.plugins
        if (text := absence(folder))
    ]


def remarks(pipeline: Pipeline, catalogue: Catalogue, *, local: bool = False) -> list[str]:
    """Return what is as it was meant, and good to know; a complaint is made of a class that is not there."""
    found = []
    for index, node in enumerate(pipeline.nodes):
        with contextlib.suppress(ConfigError):
            if is_known_here(node, catalogue, local=local) and catalogue.find(node.mark, node.type).node.writable:
                found.append(f"pipeline.nodes[{index}].mark: {node.mark}: {WRITES}")
    return found


def outline_here(node: NodeDefinition, catalogue: Catalogue, *, local: bool = False) -> Outline | None:
    """Return what is known here of a node; :class:`ConfigError` if it is to run here, and cannot."""
    if is_known_here(node, catalogue, local=local):
        return catalogue.find(node.mark, str(node.type) or None).outline()
    return catalogue.outline(node.mark, node.type)


def is_known_here(node: NodeDefinition, catalogue: Catalogue, *, local: bool = False) -> bool:
    """True when the class of a node is to be looked at here: it runs here, or is part of celerypipe itself."""
    return (
        local or not node.warped or (node.mark in built_in_marks() and catalogue.plugin(node.mark, node.type) is None)
    )


def _of_node(node: NodeDefinition, place: str, *, local: bool) -> Iterator[Complaint]:
    """What a node's definition says wrong by itself, whatever its class is."""
    if node.sync is not None:
        yield from _of_sync(node, f"{place}.sync")
    if not node.warped:
        return
    if is_only_here(node.mark) and not local:
        text = how_to_move(node.mark.partition(".")[2], node.warp_configuration.queue or "")
        yield Complaint(f"{place}.mark", f"{node.mark!r}: {text}")
    try:
        if files := files_in(node.configuration):
            text = (
                f"has the file {files[0].name!r}, and the content of files travels with messages only; send it in those"
            )
            yield Complaint(f"{place}.configuration", text)
    except CodecError as error:
        text = f"cannot travel to the worker: {error}; give a warped node plain values"
        yield Complaint(f"{place}.configuration", text)
    if not local and (text := packing.complaint(node.warp_configuration.compression)):
        yield Complaint(f"{place}.warp_configuration.compression", text)


def _of_sync(node: NodeDefinition, place: str) -> Iterator[Complaint]:
    word, colon, value = (node.sync or "").partition(":")
    if word == "key" and not value:
        yield Complaint(place, "names no field; write key:<meta field>, such as key:page")
    elif word == "within" and not _is_seconds(value):
        yield Complaint(place, f"{value!r} is no number of seconds; write within:<seconds>, such as within:0.5")
    elif word not in SYNCS_WITH_VALUE and (colon or word not in SYNCS):
        ways = [*SYNCS, "key:<meta field>", "within:<seconds>"]
        text = f"{node.sync!r} is no way to join{did_you_mean(word, [*SYNCS, *SYNCS_WITH_VALUE])}"
        yield Complaint(place, f"{text}; there are {', '.join(ways)}")
    elif word == "local" and node.warped:
        text = "joins by the node's own next_batch, and this one runs elsewhere; choose another way to join"
        yield Complaint(place, text)


def _of_class(node: NodeDefinition, place: str, outline: Outline) -> Iterator[Complaint]:
    """What a node's definition says wrong about its class."""
    if str(node.type) not in (outline.kind, ""):
        text = f"{node.mark} is a {outline.kind}, not a {node.type}; write {outline.kind}"
        yield Complaint(f"{place}.type", text)
    for text in not_awaited(outline.awaits):
        yield Complaint(f"{place}.mark", f"{node.mark}: {text}")
    limits, memory = node.warp_configuration, {"stateful": outline.stateful, "snapshots": outline.snapshots}
    for key, text in demands(limits, **memory) if node.warped else ():
        where = f"warp_configuration.{key}" if key else "warped"
        yield Complaint(f"{place}.{where}", text)
    size = limits.batches.size
    if node.warped and size > 1 and not outline.batches:
        text = f"is {size}, but {node.mark} has no update_batch(messages); write one, or leave batch out"
        yield Complaint(f"{place}.warp_configuration.batch.size", text)
    if node.cache is not None and (text := cannot_keep(stateful=outline.stateful)):
        yield Complaint(f"{place}.cache", text)


def _of_arguments(node: NodeDefinition, place: str, outline: Outline | None) -> Iterator[Complaint]:
    """What is wrong with a configuration; a variable stands for its text, as the type that the argument needs."""
    configuration: Mapping[str, Any] = node.configuration
    unsettled = frozenset[str]()
    kinds, among = outline.scalars() if outline else {}, node.from_environment
    try:
        configuration = resolve_environment(configuration, os.environ, place, kinds, among)
    except DefinitionError as error:
        unsettled = among
        yield from error.complaints
    homes = {name: home for name in configuration if outline and not outline.takes(name) and (home := home_of(name))}
    for name, home in homes.items():
        yield Complaint(f"{place}.{name}", f"is no argument of {node.mark}: {home}")
    configuration = {name: value for name, value in configuration.items() if name not in homes}
    for found in outline.complaints(configuration, unsettled) if outline else ():
        yield Complaint(f"{place}.{found.place}" if found.place else place, found.text)


def _notes_of_warped(node: NodeDefinition, place: str, catalogue: Catalogue) -> Iterator[str]:
    with contextlib.suppress(ConfigError):  # said as a complaint
        # Where the class is known it says whether it has such an argument.
        for name in node.configuration if outline_here(node, catalogue) is None else ():
            if home := home_of(name):
                text = f"is an argument only if {node.mark}, which is not here, has one of that name; else {home}"
                yield f"{place}.configuration.{name}: {text}"
    if node.timeout is None:
        yield f"{place}: the warped node {node.name!r} has no timeout; without a worker it waits for ever"
    if emptied_elsewhere(node):
        text = "each process that serves it empties its file first, and so what others wrote"
        yield f'{place}.configuration: {node.name!r} is warped, and {text}; write "append": true'
    if (marks := catalogue.instead_of(node.mark)) is not None:
        cure = did_you_mean(node.mark, marks)
        yield f"{place}.mark: {node.mark!r} is not known here; the worker on {node.queue!r} must know it{cure}"


def _notes_of_local(node: NodeDefinition, place: str, catalogue: Catalogue) -> Iterator[str]:
    with contextlib.suppress(ConfigError):  # a class that is not there is a complaint, not a note
        if node.sync == "local" and not hasattr(catalogue.find(node.mark, node.type).node, "next_batch"):
            yield f"{place}.sync: {node.mark} has no next_batch(sources) to join by; messages pass as they come"
    plugin = catalogue.plugin(node.mark, node.type)
    if plugin is not None and plugin.requirements is not None and (missing := unmet(plugin.requirements)):
        yield f"{place}.mark: {node.mark!r} needs {', '.join(missing)}; pip install -r {plugin.requirements}"


def _is_seconds(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and float(text) >= 0
    except ValueError:
        return False
