"""What is changed in a definition for one run: values of its nodes, and where they run."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celerypipe.definition.parts import NodeDefinition
from celerypipe.errors import Complaint, DefinitionError, did_you_mean

#: Where a node is placed that runs in the runner's process.
HERE = "here"
#: Keys of a node that ``--set`` changes; any other one is an argument of its class.
KEYS = frozenset(field.alias or name for name, field in NodeDefinition.model_fields.items()) - {"name", "type", "mark"}


@dataclass(frozen=True, slots=True)
class Override:
    """One change: ``said`` as it was written, ``node``, and either the way to a value or the queue it is placed on."""

    said: str
    node: str
    way: tuple[str, ...] = ()
    value: Any = None


@dataclass(frozen=True, slots=True)
class Overrides:
    """Changes of a definition, applied to what its file says, before anything is checked."""

    changes: tuple[Override, ...] = ()

    @classmethod
    def read(cls, values: Iterable[str] = (), places: Iterable[str] = ()) -> Overrides:
        """Read what was typed; :class:`DefinitionError` with a complaint for each that is no change.

        ``values``: ``node.key=value``, the value in JSON, or as a text where it is none. ``places``: ``node=queue``,
        ``node=here``, or the name of a TOML file with such lines.
        """
        changes: list[Override] = []
        complaints: list[Complaint] = []
        for reader, option, said in (
            *((_value, "--set", text) for text in values),
            *((_places, "--place", text) for text in places),
        ):
            try:
                changes += reader(said)
            except ValueError as error:
                complaints.append(Complaint(f"{option} {said}", str(error)))
        if complaints:
            raise DefinitionError(complaints)
        return cls(tuple(changes))

    def applied(self, data: Any) -> Any:
        """Return a definition with these changes; :class:`DefinitionError` names the nodes that it does not have."""
        if not self.changes:
            return data
        changed = copy.deepcopy(data)
        nodes = {node["name"]: node for node in _nodes(changed) if isinstance(node.get("name"), str)}
        complaints = []
        for change in self.changes:
            if change.node not in nodes:
                cure = did_you_mean(change.node, nodes) or f"; its nodes are {', '.join(nodes)}"
                complaints.append(Complaint(change.said, f"the pipeline has no node {change.node!r}{cure}"))
                continue
            try:
                _change(nodes[change.node], change)
            except TypeError as error:
                complaints.append(Complaint(change.said, str(error)))
        if complaints:
            raise DefinitionError(complaints)
        return changed


def _value(said: str) -> Iterator[Override]:
    name, sign, text = said.partition("=")
    node, *way = name.split(".")
    if not sign or not node or not way or not all(way):
        raise ValueError("write NODE.KEY=VALUE, such as transcribe.model=small")
    if way[0] not in KEYS:
        way = ["configuration", *way]
    try:
        value = json.loads(text, parse_constant=_constant)
    except ValueError:
        value = text
    yield Override(f"--set {name}", node, tuple(way), value)


def _places(said: str) -> Iterator[Override]:
    node, sign, queue = said.partition("=")
    if sign:
        yield _place(f"--place {said}", node, queue)
        return
    try:
        found = tomllib.loads(Path(said).read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError("write NODE=QUEUE, NODE=here, or the name of a TOML file; there is no such file") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f'is no TOML: {error}; write a line for each node, such as transcribe = "gpu"') from None
    for node, queue in found.items():
        yield _place(f"--place {said}: {node}", node, queue)


def _place(said: str, node: str, queue: Any) -> Override:
    if not node or not isinstance(queue, str) or not queue:
        raise ValueError(f"{node or 'a node'} needs the name of a queue, or {HERE!r}")
    return Override(said, node, (), queue)


def _change(node: dict[str, Any], change: Override) -> None:
    if not change.way:
        node["warped"] = change.value != HERE
        if node["warped"]:
            _inside(node, "warp_configuration")["queue"] = change.value
        else:
            held = node.pop("warp_configuration", None)  # which a node that runs here may not have
            for key in ("timeout", "retries"):  # the same settings, wherever they are written
                if isinstance(held, dict) and held.get(key) is not None:
                    node.setdefault(key, held[key])
        return
    *ways, key = change.way
    for each in ways:
        node = _inside(node, each)
    node[key] = change.value


def _inside(holder: dict[str, Any], key: str) -> dict[str, Any]:
    found = holder.setdefault(key, {})
    if not isinstance(found, dict):
        raise TypeError(f"{key!r} is no object {{...}}, so it has no keys; set the whole of it")
    return found


def _nodes(data: Any) -> Iterator[dict[str, Any]]:
    inner = data.get("pipeline") if isinstance(data, Mapping) else None
    nodes = inner.get("nodes") if isinstance(inner, Mapping) else None
    yield from (node for node in nodes if isinstance(node, dict)) if isinstance(nodes, list) else ()


def _constant(name: str) -> Any:
    raise ValueError(name)
