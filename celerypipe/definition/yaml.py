"""A definition in YAML, read as strictly as one in JSON."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

#: What YAML 1.2 calls a number, a flag and nothing, as far as JSON has it: ``0x1F`` and ``.inf`` are texts. In YAML 1.1
#: ``no`` and ``on`` are flags, and ``1:30`` is 90.
PLAIN = (
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
        list("-+.0123456789"),
    ),
)
#: What plain values are made of their texts by.
MAKERS: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:null": lambda _: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
}


def read_yaml(text: str) -> Any:
    """Return what a YAML text says; ValueError names line and column, ImportError the package that is missing.

    Mappings, lists, texts, numbers, true, false and null, as in JSON. Tags (``!!python/…``, and ``!!bool`` too) are
    refused, and so are anchors and aliases, which can make a text of ten lines larger than any memory.
    """
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ImportError("YAML needs the package pyyaml: pip install 'celerypipe[yaml]'") from None
    try:
        return _value(yaml, yaml.compose(text, Loader=_loader(yaml)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        cure = "; YAML takes no tabs: indent with spaces" if "\\t" in str(error.problem) else ""
        raise ValueError(f"{error.problem or error.context}{where}{cure}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def _loader(yaml: Any) -> type[Any]:
    class PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # a class of a package that may not be there
        """Reads events; knows the plain values of YAML 1.2."""

        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML declares it so

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise yaml.MarkedYAMLError(
                    problem="anchors and aliases (& and *) are not taken", problem_mark=event.start_mark
                )
            if event.tag is not None:
                raise yaml.MarkedYAMLError(
                    problem=f"tags ({event.tag}) are not taken; leave it out", problem_mark=event.start_mark
                )
            return super().compose_node(parent, index)

    for tag, form, first in PLAIN:
        PlainLoader.add_implicit_resolver(tag, form, first)
    return PlainLoader


def _value(yaml: Any, node: Any) -> Any:
    if node is None:
        return None
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in found:
                problem = f"the key {key.value!r} is written twice; remove one of them"
                if not isinstance(key, yaml.ScalarNode):
                    problem = "a key is a text"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            found[key.value] = _value(yaml, value)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(yaml, each) for each in node.value]
    try:
        return MAKERS[node.tag](node.value)
    except ValueError:  # more digits than Python reads
        raise yaml.MarkedYAMLError(problem="too long a number", problem_mark=node.start_mark) from None
