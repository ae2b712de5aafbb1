"""What a node takes and depends on, read from its source here: its arguments, its version, the notes it looks at.

It is what its worker would tell, or nothing: a version that is declared in the class itself, and defaults that stand
there as plain values. The module is not run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from celerypipe.catalogue.catalogue import Listing
from celerypipe.catalogue.declaration import ROOTS, Definition, assigns, definition_of_mark
from celerypipe.catalogue.told import default_digest
from celerypipe.contract.contract import node_class

ClassSchema = dict[str, Any]


class _Unreadable(Exception):
    """It cannot be read off the text."""


def schema_of_mark(mark: str) -> ClassSchema | None:
    """Return what a worker would tell of a dotted mark: its code, arguments and meta; None: not known here.

    A mark whose module is loaded is asked itself.
    """
    if (loaded := _loaded(mark)) is not None:
        return loaded
    found = definition_of_mark(mark)
    if found is None:
        return None
    definition, others = found
    try:
        if isinstance(definition, ast.FunctionDef):
            version, meta, arguments = _of_function(definition)
        else:
            lineage = list(_lineage(definition, others))
            version = _constant(definition, "version")
            meta = next((value for each in lineage if (value := _constant(each, "cache_meta")) is not None), ())
            arguments = next((each for cls in lineage if (each := _constructor(cls)) is not None), [])
    except _Unreadable:
        return None
    if not (version and isinstance(version, str) and isinstance(meta, tuple | list)):
        return None
    return {"mark": mark, "code": f"version {version}", "cache_meta": list(meta), "arguments": arguments}


def _loaded(mark: str) -> ClassSchema | None:
    parts = mark.split(".")
    for length in range(len(parts) - 1, 0, -1):
        value: Any = sys.modules.get(".".join(parts[:length]))
        if value is not None:
            for name in parts[length:]:
                value = getattr(value, name, None)
            node = node_class(value)
            return Listing(mark, node, "import").schema() if node is not None else None
    return None


def _lineage(cls: ast.ClassDef, others: Sequence[Definition]) -> Iterator[ast.ClassDef]:
    """A class and its bases, as far as the contract; each has to be in the same file and to have one base."""
    while True:
        if cls.decorator_list or cls.keywords or len(cls.bases) != 1:
            raise _Unreadable
        yield cls
        base = cls.bases[0]
        name = base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")
        found = [each for each in others if each.name == name and each.lineno < cls.lineno]
        if not found and name in ROOTS:
            return
        if len(found) != 1 or not isinstance(found[0], ast.ClassDef) or not isinstance(base, ast.Name):
            raise _Unreadable
        cls = found[0]


def _constant(cls: ast.ClassDef, name: str) -> Any:
    """The value that a class gives to a name, None if it gives none."""
    values = []
    for statement in ast.walk(cls):
        if assigns(statement, name):
            if statement not in cls.body or isinstance(statement, ast.AugAssign):
                raise _Unreadable
            values.append(_literal(getattr(statement, "value", None)))
    return values[-1] if values else None


def _constructor(cls: ast.ClassDef) -> list[ClassSchema] | None:
    made = [each for each in cls.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__new__")]
    if not made:
        return None
    if len(made) > 1 or made[0].name != "__init__" or made[0].decorator_list:
        raise _Unreadable
    return list(_arguments(made[0].args))


def _of_function(function: ast.FunctionDef) -> tuple[Any, tuple[str, ...], list[ClassSchema]]:
    decorators = [each for each in function.decorator_list if isinstance(each, ast.Call)]
    if len(decorators) != 1 or len(function.decorator_list) != 1:
        raise _Unreadable
    called = decorators[0].func
    if (called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")) != "node":
        raise _Unreadable
    given: Mapping[str | None, ast.expr] = {each.arg: each.value for each in decorators[0].keywords}
    return _literal(given.get("version")), (), list(_arguments(function.args))


def _arguments(given: ast.arguments) -> Iterator[ClassSchema]:
    """All arguments but the first one, as ``arguments_of`` finds them."""
    positional = [*given.posonlyargs, *given.args]
    missing = len(positional) - len(given.defaults)
    pairs = list(zip(positional, [*[None] * missing, *given.defaults], strict=True))[1:]
    named = [pair for pair in pairs if pair[0] not in given.posonlyargs]
    for argument, default in [*named, *zip(given.kwonlyargs, given.kw_defaults, strict=True)]:
        value = _literal(default) if default is not None else None
        schema = {"name": argument.arg, "required": default is None, "default": value}
        yield schema if default is None else {**schema, "digest": default_digest(value)}


def _literal(expression: ast.expr | None) -> Any:
    try:
        return None if expression is None else ast.literal_eval(expression)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _Unreadable from None
