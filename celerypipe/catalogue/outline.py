"""What a node takes, read from its source here: the module is not run, and its packages need not be installed.

It is what the node's worker would tell, or nothing: where a class inherits from another module, is decorated, or has
defaults that are no plain values.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from celerypipe.catalogue.declaration import ROOTS, Definition, definition_of_mark
from celerypipe.catalogue.told import default_digest

#: One argument, as a worker tells of it.
ArgumentSchema = dict[str, Any]


class _Unreadable(Exception):
    """It cannot be read off the text."""


def arguments_in_source(mark: str) -> list[ArgumentSchema] | None:
    """Return what the class or function of a dotted mark takes; None: it is not here, or not known."""
    found = definition_of_mark(mark)
    if found is None:
        return None
    definition, others = found
    try:
        if isinstance(definition, ast.FunctionDef):
            return _of_function(definition)
        return next((each for cls in _lineage(definition, others) if (each := _constructor(cls)) is not None), [])
    except _Unreadable:
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


def _constructor(cls: ast.ClassDef) -> list[ArgumentSchema] | None:
    made = [each for each in cls.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__new__")]
    if not made:
        return None
    if len(made) > 1 or made[0].name != "__init__" or made[0].decorator_list:
        raise _Unreadable
    return list(_arguments(made[0].args))


def _of_function(function: ast.FunctionDef) -> list[ArgumentSchema]:
    if len(function.decorator_list) != 1:
        raise _Unreadable
    decorator = function.decorator_list[0]
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    if (node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")) != "node":
        raise _Unreadable
    return list(_arguments(function.args))


def _arguments(given: ast.arguments) -> Iterator[ArgumentSchema]:
    """All arguments but the first one, as ``arguments_of`` finds them."""
    positional = [*given.posonlyargs, *given.args]
    missing = len(positional) - len(given.defaults)
    pairs = list(zip(positional, [*[None] * missing, *given.defaults], strict=True))[1:]
    named = [pair for pair in pairs if pair[0] not in given.posonlyargs]
    for argument, default in [*named, *zip(given.kwonlyargs, given.kw_defaults, strict=True)]:
        value = _literal(default) if default is not None else None
        schema = {"name": argument.arg, "required": default is None, "default": value}
        yield schema if default is None else {**schema, "digest": default_digest(value)}


def _literal(expression: ast.expr) -> Any:
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise _Unreadable from None
