"""The annotation of an argument, as text: does a plain value fit it?

Looked at are ``str``, ``int``, ``float``, ``bool``, ``None``, ``Literal``, unions, and lists, tuples and mappings of
these; a path is a text, and a whole number is a number. What else an annotation says is not known here, and any value
fits it; so does any value that JSON has no word for.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from celerypipe.catalogue import syntax
from celerypipe.errors import did_you_mean

_PLAIN = (type(None), bool, int, float, str, list, tuple, dict)
_LISTS = frozenset({"list", "List", "Sequence", "MutableSequence", "Iterable", "Collection"})
_OBJECTS = frozenset({"dict", "Dict", "Mapping", "MutableMapping"})
_TUPLES = frozenset({"tuple", "Tuple"})
#: Annotation → what a value of it is called, and whether one is. Of a bool it is not asked, but for ``bool``.
_SCALARS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "str": ("a text in quotes", lambda value: isinstance(value, str)),
    "Path": ("a text in quotes", lambda value: isinstance(value, str)),
    "PathLike": ("a text in quotes", lambda value: isinstance(value, str)),
    "int": ("a whole number", lambda value: isinstance(value, int)),
    "float": ("a number", lambda value: isinstance(value, int | float)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "None": ("null", lambda value: value is None),
}

#: What JSON Schema calls them.
_JSON = {
    "str": "string",
    "Path": "string",
    "PathLike": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "None": "null",
}
#: A text that holds a variable of the environment, wherever it stands.
VARIABLE: dict[str, Any] = {"$ref": "#/$defs/Variable"}


@dataclass(frozen=True, slots=True)
class _Misfit:
    """Where in a value something does not fit: ``[2]``, ``['a']``, or nothing; and what it is not."""

    place: str
    wanted: str
    value: Any


def misfit(annotation: str, name: str, value: Any) -> str:
    """Say what is wrong with a value for the argument ``name``; empty: it fits. The value itself is not shown."""
    expression = _parsed(annotation)
    found = _misfit(expression, value, "") if expression is not None else None
    if found is None:
        return ""
    text = f"{name + found.place!r} must be {found.wanted}, not {_called(found.value)}"
    return text + _cure(found)


def scalar(annotation: str) -> type | None:
    """Return the one of bool, int and float that an annotation wants; None where it wants a text, or none of them."""
    expression = _parsed(annotation)
    names = [_name(each) for each in _alternatives(expression)] if expression is not None else []
    found = [kind for kind in (bool, float, int) if kind.__name__ in names]
    return found[0] if found and not {"str", "Path", "Any", "object", "Literal"} & set(names) else None


def schema(annotation: str) -> dict[str, Any]:
    """Return the JSON Schema of the values that fit an annotation; an empty one where that says nothing.

    Where it takes no text, :data:`VARIABLE` is one of the choices, for what stands in the environment.
    """
    expression = _parsed(annotation)
    return _schema(expression) if expression is not None else {}


def either(choices: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON Schema of what fits one of several; plain types are written as one."""
    found: list[dict[str, Any]] = []
    for each in choices:
        if each not in found:
            found.append(each)
    if not all(found):
        return {}
    types = [each["type"] for each in found if list(each) == ["type"]]
    plain = [{"type": types[0] if len(types) == 1 else types}] if types else []
    rest = [each for each in found if list(each) != ["type"]]
    return (plain + rest)[0] if len(plain + rest) == 1 else {"anyOf": plain + rest}


def _schema(expression: ast.expr) -> dict[str, Any]:
    found = [_schema_of_one(each) for each in _alternatives(expression)]
    takes_text = {"type": "string"} in found or not all(found)
    return either(found if takes_text else [*found, VARIABLE])


def _schema_of_one(expression: ast.expr) -> dict[str, Any]:
    name, parts = _name(expression), _parts(expression.slice) if isinstance(expression, ast.Subscript) else []
    if name in _JSON:
        return {"type": _JSON[name]}
    if name == "Literal":
        known = [each.value for each in parts if isinstance(each, ast.Constant)]
        return {"enum": known} if len(known) == len(parts) else {}
    if name in _LISTS:
        return {"type": "array", "items": _schema(parts[0])} if len(parts) == 1 else {"type": "array"}
    if name in _OBJECTS:
        inner = {"additionalProperties": _schema(parts[1])} if len(parts) == 2 else {}
        return {"type": "object", **inner}
    return _schema_of_tuple(parts) if name in _TUPLES else {}


def _schema_of_tuple(parts: list[ast.expr]) -> dict[str, Any]:
    if len(parts) == 2 and isinstance(parts[1], ast.Constant) and parts[1].value is ...:
        return {"type": "array", "items": _schema(parts[0])}
    length = {"minItems": len(parts), "maxItems": len(parts), "prefixItems": [_schema(each) for each in parts]}
    return {"type": "array", **(length if parts else {})}


@functools.lru_cache(maxsize=1024)
def _parsed(annotation: str) -> ast.expr | None:
    try:
        return syntax.expression(annotation) if annotation else None
    except (SyntaxError, ValueError, RecursionError):
        return None


def _alternatives(expression: ast.expr) -> Iterator[ast.expr]:
    """The annotations of which a union, an ``Optional`` or an ``Annotated`` is made; else itself."""
    match expression:
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            yield from _alternatives(left)
            yield from _alternatives(right)
        case ast.Subscript(slice=inner) if _name(expression) in ("Union", "Optional"):
            for each in _parts(inner):
                yield from _alternatives(each)
            if _name(expression) == "Optional":
                yield ast.Constant(None)
        case ast.Subscript(slice=inner) if _name(expression) in ("Annotated", "Final"):
            yield from _alternatives(_parts(inner)[0])
        case ast.Constant(value=str(text)) if (quoted := _parsed(text)) is not None:
            yield from _alternatives(quoted)
        case _:
            yield expression


def _misfit(expression: ast.expr, value: Any, place: str) -> _Misfit | None:
    if type(value) not in _PLAIN:
        return None
    found = [_misfit_of_one(each, value, place) for each in _alternatives(expression)]
    if None in found:
        return None
    misfits = [each for each in found if each is not None]
    inner = [each for each in misfits if each.place != place]
    if len(inner) == 1:  # the only one that the value may be meant as
        return inner[0]
    return _Misfit(place, " or ".join(dict.fromkeys(each.wanted for each in misfits if each.place == place)), value)


def _misfit_of_one(expression: ast.expr, value: Any, place: str) -> _Misfit | None:
    name, parts = _name(expression), _parts(expression.slice) if isinstance(expression, ast.Subscript) else []
    if name in _SCALARS:
        wanted, fits = _SCALARS[name]
        is_flag = isinstance(value, bool)
        return None if fits(value) and (name == "bool" or not is_flag) else _Misfit(place, wanted, value)
    if name == "Literal":
        return _of_literal(parts, value, place)
    if name in _LISTS:
        if not isinstance(value, list | tuple):
            return _Misfit(place, "a list [...]", value)
        return _first(parts[0], dict(enumerate(value)), place) if len(parts) == 1 else None
    if name in _OBJECTS:
        if not isinstance(value, dict):
            return _Misfit(place, "an object {...}", value)
        return _first(parts[1], value, place) if len(parts) == 2 else None
    return _of_tuple(parts, value, place) if name in _TUPLES else None


def _of_tuple(parts: list[ast.expr], value: Any, place: str) -> _Misfit | None:
    if not isinstance(value, list | tuple):
        return _Misfit(place, "a list [...]", value)
    if len(parts) == 2 and isinstance(parts[1], ast.Constant) and parts[1].value is ...:
        return _first(parts[0], dict(enumerate(value)), place)
    if parts and len(parts) != len(value):
        return _Misfit(place, f"a list of {len(parts)}", value)
    return next((found for i, part in enumerate(parts) if (found := _misfit(part, value[i], f"{place}[{i}]"))), None)


def _of_literal(parts: list[ast.expr], value: Any, place: str) -> _Misfit | None:
    known = [each.value for each in parts if isinstance(each, ast.Constant)]
    if len(known) < len(parts) or any(each == value and type(each) is type(value) for each in known):
        return None
    return _Misfit(place, " or ".join(map(repr, known)), value)


def _first(part: ast.expr, values: dict[Any, Any], place: str) -> _Misfit | None:
    """The first of the values in a list or an object that does not fit."""
    found = (_misfit(part, value, f"{place}[{key!r}]") for key, value in values.items())
    return next((each for each in found if each is not None), None)


def _name(expression: ast.expr) -> str:
    match expression:
        case ast.Subscript(value=inner):
            return _name(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Constant(value=None):
            return "None"
    return ""


def _parts(inner: ast.expr) -> list[ast.expr]:
    return inner.elts if isinstance(inner, ast.Tuple) else [inner]


def _called(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return "a text"
        case int():
            return "a number"
        case float():
            return "a number with a point"
        case dict():
            return "an object"
    return f"a list of {len(value)}"


def _cure(found: _Misfit) -> str:
    value, wanted = found.value, found.wanted
    if isinstance(value, str) and "number" in wanted:
        try:
            float(value)
        except ValueError:
            return ""
        return "; write the number without quotes"
    if isinstance(value, str) and value.lower() in ("true", "false") and "true" in wanted:
        return f"; write {value.lower()} without quotes"
    if isinstance(value, str):
        return did_you_mean(value, wanted.replace("'", "").split(" or ")) if "'" in wanted else ""
    return "; write it in quotes" if type(value) in (int, float) and "quotes" in wanted else ""
