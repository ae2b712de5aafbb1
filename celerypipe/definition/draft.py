"""A draft: what can be read of a definition that has mistakes, so that the rest of it is checked together with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from celerypipe.definition.pipeline import Document, Link, NodeDefinition, Pipeline, duplicate_names
from celerypipe.definition.shape import Location, meant_key, mistakes, path
from celerypipe.errors import Complaint, DefinitionError

#: What is put in the place of what cannot be read; where there is nothing here: its default.
STAND_INS: dict[str, Any] = {"type": "proc", "mark": "unread.Node"}
#: Texts that have no default, or whose default would be complained about: their place stands in for them.
TEXTS = ("name", "from", "to", "folder", "queue")
#: So often a definition is mended: shapes first, then what its parts mean to each other, for the whole after that.
PASSES = 12
#: Containers around the innermost key of a definition, ``pipeline.nodes[1].warp_configuration.batch.size``.
DEPTH = 6
_NODES, _LINKS = ("pipeline", "nodes"), ("pipeline", "links")


@dataclass(frozen=True, slots=True)
class Draft:
    """What can be read of a definition: its mistakes, and a pipeline to check further, if there is enough for one.

    A name, type, mark or end of a link that could not be read is empty in it. ``unread`` are the places of all that
    could not: what is found out about them there says nothing.
    """

    complaints: tuple[Complaint, ...]
    pipeline: Pipeline | None = None
    unread: frozenset[str] = frozenset()

    def knows(self, place: str) -> bool:
        """Could this place be read, and all around it?"""
        return not any(place == each or place.startswith((f"{each}.", f"{each}[")) for each in self.unread)


def draft_of(data: Any, root: Path, allow: Iterable[Path] = ()) -> Draft:
    """Return the draft of a definition in which :meth:`Pipeline.from_dict` finds mistakes."""
    work = _Mending(_copied(data, DEPTH))
    for _ in range(PASSES):
        try:
            pipeline = Pipeline.from_dict(work.data, root, allow)
        except DefinitionError as error:
            work.mend(error)
        else:
            return Draft(tuple(work.found), work.blank(pipeline), frozenset(map(path, work.lost)))
    return Draft(tuple(work.found))


@dataclass(slots=True)
class _Mending:
    """A definition on its way to one that can be read. ``lost``: where something could not be read, and what."""

    data: Any
    found: list[Complaint] = field(default_factory=list)
    lost: dict[Location, Any] = field(default_factory=dict)

    def mend(self, error: DefinitionError) -> None:
        """Note what is complained about, and put something in its place that is not."""
        cause = error.__cause__
        details = mistakes(Document, cause) if isinstance(cause, ValidationError) else []
        about = [each["loc"] for each in details]
        for index, complaint in enumerate(error.complaints):
            follows = index < len(about) and any(about[index][: len(each)] == each for each in self.lost)
            if not follows and complaint not in self.found:
                self.found.append(complaint)
        for each in details:
            self._mend(each)
        for complaint in error.complaints if not details else ():  # folders out of reach are not looked into
            if complaint.place.startswith("plugins["):
                self._lose(("plugins",))
            elif complaint.place == "pipeline.folder":
                self._lose(("pipeline", "folder"))
        for index in self._twins():
            self._lose((*_NODES, index, "name"))

    def _mend(self, details: ErrorDetails) -> None:
        location = details["loc"]
        within, depth = self._reached(location)
        value = within.get(location[-1]) if depth == len(location) - 1 and isinstance(within, dict) else None
        if details["type"] == "extra_forbidden":
            meant = meant_key(Document, location)
            within.pop(location[-1], None)
            if meant and meant not in within:
                within[meant] = value
            return
        first = location not in self.lost
        self._lose(location if _stand_in(location) is not None else location[: depth + 1])
        if isinstance(value, str) and first:
            with suppress(ValueError, RecursionError):  # a number or a flag in quotes is what stands in them
                within[location[-1]] = json.loads(value)

    def _reached(self, location: Location) -> tuple[Any, int]:
        """What is as near to the end of a location as what is written leads, and how many steps it took."""
        within, depth = self.data, 0
        for part in location[:-1]:
            inner = within.get(part) if isinstance(within, dict) else within[part] if isinstance(part, int) else None
            if not isinstance(inner, dict | list):
                break
            within, depth = inner, depth + 1
        return within, depth

    def _lose(self, location: Location) -> None:
        """Put a stand-in there, or nothing; what stands in a list keeps its number."""
        within, depth = self._reached(location)
        stand_in, key = _stand_in(location), location[-1]
        for part in location[depth:-1]:  # it was to be written, and what it stands in is not there either
            within = within.setdefault(part, {})
        if isinstance(within, dict):
            self.lost.setdefault(location, within.pop(key, None))
            if stand_in is not None:
                within[key] = stand_in
        elif isinstance(key, int):
            self.lost.setdefault(location, within[key])
            within[key] = self._part(location) if location[:-1] in (_NODES, _LINKS) else path(location)

    def _part(self, location: Location) -> dict[str, Any]:
        keys = ("name", "type", "mark") if location[:-1] == _NODES else ("from", "to")
        self.lost |= {(*location, key): None for key in keys}
        return {key: _stand_in((*location, key)) for key in keys}

    def _twins(self) -> Sequence[int]:
        pipeline = self.data.get("pipeline") if isinstance(self.data, dict) else None
        nodes = pipeline.get("nodes") if isinstance(pipeline, dict) else None
        twins = {complaint.place for complaint in duplicate_names(nodes)}
        return [index for index in range(len(nodes or ())) if f"pipeline.nodes[{index}].name" in twins] if twins else []

    def blank(self, pipeline: Pipeline) -> Pipeline:
        """Return the pipeline without what only stands in for something; a name that is no good one is a name still."""
        nodes = [self._node(node, (*_NODES, index)) for index, node in enumerate(pipeline.nodes)]
        links = [self._link(link, (*_LINKS, index)) for index, link in enumerate(pipeline.links)]
        if _LINKS in self.lost:
            links.append(Link(source="unread", target="unread").model_copy(update={"from": "", "to": ""}))
        return pipeline.model_copy(update={"nodes": tuple(nodes), "links": tuple(links)})

    def _node(self, node: NodeDefinition, place: Location) -> NodeDefinition:
        values: dict[str, Any] = {key: "" for key in ("type", "mark") if (*place, key) in self.lost}
        if (*place, "name") in self.lost:
            values["name"] = _text(self.lost[*place, "name"])
        if (*place, "warped") in self.lost:  # its class is not imported here then
            values["warped"] = self.lost[*place, "warped"] not in (False, 0, "false", "no", "")
        return node.model_copy(update=values)

    def _link(self, link: Link, place: Location) -> Link:
        return link.model_copy(
            update={key: _text(self.lost[*place, key]) for key in ("from", "to") if (*place, key) in self.lost}
        )


def _copied(value: Any, depth: int) -> Any:
    """A copy down to the innermost keys; what a configuration holds stays as it is, however deep."""
    if isinstance(value, dict) and depth:
        return {key: _copied(item, depth - 1) for key, item in value.items()}
    return [_copied(item, depth - 1) for item in value] if isinstance(value, list) and depth else value


def _stand_in(location: Location) -> Any:
    key = location[-1]
    return path(location) if key in TEXTS else STAND_INS.get(str(key))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
