"""The arguments of a node class: what its configuration may say, as values and as a schema that travels as JSON."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celerypipe.catalogue.annotation import either, misfit, scalar, schema
from celerypipe.contract.contract import Node
from celerypipe.errors import Complaint, did_you_mean, nearest

#: A line of a docstring that begins to say what arguments are for.
_EXPLAINED = re.compile(r"((?:``\w+``(?:, | and )?)+): (.*)")
_NAME = re.compile(r"``(\w+)``")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a node's constructor. ``default`` means nothing when it is required; ``annotation`` is text."""

    name: str
    required: bool
    default: Any = None
    annotation: str = ""

    def __str__(self) -> str:
        return self.name if self.required else f"{self.name}={self.default!r}"

    @property
    def annotated(self) -> str:
        """The argument as it is declared."""
        return f"{self.name}: {self.annotation}"

    @property
    def scalar(self) -> type | None:
        """The one of bool, int and float that a text from the environment is turned into; None: it stays a text."""
        wanted = scalar(self.annotation)
        if wanted is None and type(self.default) in (bool, int, float):
            return type(self.default)
        return wanted

    def misfit(self, value: Any) -> str:
        """Say what is wrong with a value for it, by its annotation; empty: it fits, or that says nothing."""
        is_default = not self.required and type(value) is type(self.default) and value == self.default
        return "" if is_default else misfit(self.annotation, self.name, value)

    def json_schema(self, about: str = "") -> dict[str, Any]:
        """Return the JSON Schema of its values, for editors; ``about``: what it is for."""
        fitting = schema(self.annotation)
        notes = {"description": about} if about else {}
        if not self.required and _is_json(self.default):
            notes["default"] = self.default
            if misfit(self.annotation, self.name, self.default):
                fitting = either([fitting, {"const": self.default}])
        return {**fitting, **notes}

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; a default that JSON cannot say exactly becomes its ``repr``."""
        return {
            "name": self.name,
            "required": self.required,
            "default": self.default if _is_json(self.default) else repr(self.default),
            "annotation": self.annotation,
        }


def arguments_of(node: type[Node], defaults: Mapping[str, Any]) -> tuple[Argument, ...]:
    """Return what a node class takes; ``defaults`` come before those of its code."""
    found = {
        name: Argument(
            name,
            required=parameter.default is parameter.empty and name not in defaults,
            default=defaults.get(name, None if parameter.default is parameter.empty else parameter.default),
            annotation=_text(parameter.annotation),
        )
        for name, parameter in _parameters(node).items()
        if parameter.kind in _NAMED
    }
    # A class that takes **anything declares what it takes in its config.toml.
    for name, default in defaults.items():
        found.setdefault(name, Argument(name, required=False, default=default))
    return tuple(found.values())


def explanations(node: type[Node]) -> dict[str, str]:
    """Return what a class's docstring says of its arguments, one line or more each: ``"``name``: what it is for"``."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in map(str.strip, (node.__dict__.get("__doc__") or "").splitlines()):
        begins = _EXPLAINED.fullmatch(line)
        if begins is not None:
            names = _NAME.findall(begins[1])
        for name in names if line else ():
            found[name] = f"{found[name]} {line}" if begins is None else begins[2]
        names = names if line else []
    return found


def takes_anything(node: type[Node]) -> bool:
    """True when the constructor has a ``**`` parameter."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in _parameters(node).values())


def complaints_from_schema(
    schema: Mapping[str, Any], configuration: Mapping[str, Any], unsettled: Container[str] = ()
) -> list[Complaint]:
    """Return what is wrong with a configuration by the schema of its node, which may have come over the wire."""
    arguments = [
        Argument(
            str(argument["name"]),
            bool(argument["required"]),
            argument.get("default"),
            str(argument.get("annotation", "")),
        )
        for argument in schema["arguments"]
    ]
    return complaints(str(schema["mark"]), arguments, bool(schema.get("open")), configuration, unsettled)


def complaints(
    mark: str,
    arguments: Iterable[Argument],
    is_open: bool,
    configuration: Mapping[str, Any],
    unsettled: Container[str] = (),
) -> list[Complaint]:
    """Return what is wrong with the arguments: missing, unknown, or of another type than is annotated.

    The place is an argument's name, or empty for what concerns them all. ``is_open``: unknown ones are welcome;
    ``unsettled``: arguments whose value is not known yet.
    """
    known = {argument.name: argument for argument in arguments}
    takes = f"it takes {', '.join(map(str, known.values()))}" if known else "it takes no arguments"
    unknown = [name for name in configuration if name not in known and not is_open]
    meant = {nearest(name, known) for name in unknown}
    missing = [
        Complaint("", f"the argument {argument.name!r} of {mark} is missing; {takes}")
        for argument in known.values()
        if argument.required and argument.name not in configuration and argument.name not in meant
    ]
    strange = [
        Complaint("", f"{mark} has no argument {name!r}; {takes}{did_you_mean(name, known)}") for name in unknown
    ]
    wrong = [
        Complaint(name, f"the argument {text}; {mark} takes {known[name].annotated}")
        for name, value in configuration.items()
        if name in known and name not in unsettled and (text := known[name].misfit(value))
    ]
    return missing + strange + wrong


def _parameters(node: type[Node]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(node).parameters


def _text(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False
