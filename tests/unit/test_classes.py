"""The rules of the house about classes: behaviour is given as a part, not overridden, and families are small."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2] / "celerypipe"

#: Two levels are a base and its children. These are no levels: they say what kind of thing a class is, and nothing is
#: made of them. Nodes are subclasses of Source, Proc and Sink; what a definition consists of are shapes.
KINDS = frozenset({"Node", "Shape"})
#: Errors are a tree: its levels are what ``except`` can ask for. It is drawn in errors.py.
TREE = "CelerypipeError"

#: What is deeper, and why. To be made shorter, never longer.
DEEPER = {
    "JsonHttp": "Listener holds the port and the inbox of both; as a part it would cost each four methods that pass on",
    "JsonWebsocket": "the same",
    "StatefulServing": "Running is what a relay hands messages to, Serving what an activation does; it adds the fence",
}
#: What overrides a method that begins with ``_``, and why. To be made shorter, never longer.
OVERRIDES: dict[str, str] = {}


class Kin(NamedTuple):
    """A class of the package: the names of its bases, and of its own methods."""

    bases: tuple[str, ...]
    methods: frozenset[str]


def _name(base: ast.expr) -> str:
    """The name of a base: ``Handover[W]`` is a ``Handover``; ``redis.Channel`` is none of the package."""
    base = base.value if isinstance(base, ast.Subscript) else base
    return base.id if isinstance(base, ast.Name) else ""


def _classes(trees: Iterator[ast.Module]) -> dict[str, Kin]:
    """All classes by name, which is unique."""
    return {
        node.name: Kin(
            tuple(map(_name, node.bases)),
            frozenset(each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)),
        )
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


@functools.cache
def _package() -> dict[str, Kin]:
    return _classes(ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py")))


def _above(name: str, classes: dict[str, Kin]) -> set[str]:
    """The bases of a class that are in the package, and theirs."""
    bases = {base for base in classes[name].bases if base in classes}
    return bases.union(*(_above(base, classes) for base in bases))


def _levels(name: str, classes: dict[str, Kin]) -> int:
    if name not in classes or name in KINDS:
        return 0
    return 1 + max((_levels(base, classes) for base in classes[name].bases), default=0)


def _overrides(classes: dict[str, Kin]) -> set[str]:
    return {
        f"{name}.{method}"
        for name, kin in classes.items()
        for base in _above(name, classes)
        for method in kin.methods & classes[base].methods
        if method.startswith("_") and not method.startswith("__")
    }


def _deeper(classes: dict[str, Kin]) -> set[str]:
    return {name for name in classes if TREE not in _above(name, classes) and _levels(name, classes) > 2}


def test_nobody_overrides_what_begins_with_an_underscore() -> None:
    classes = _package()
    assert len(classes) > 200
    assert _overrides(classes) == set(OVERRIDES)


def test_two_levels_of_inheritance_at_most() -> None:
    assert _deeper(_package()) == set(DEEPER)


def test_both_are_seen() -> None:
    text = (
        "class Node: ...\nclass Source(Node): ...\nclass Mine(Source): ...\nclass Deep(Mine): ...\n"
        "class Base(Generic[T]):\n    def _hook(self): ...\n    def __init__(self): ...\n"
        "class Child(Base[int], abc.Base):\n    def __init__(self): ...\n    def hook(self): ...\n"
        "class Rogue(Child):\n    async def _hook(self): ...\n"
        "class CelerypipeError(Exception): ...\nclass One(CelerypipeError): ...\nclass Two(One): ...\n"
        "class Three(Two): ...\n"
    )
    classes = _classes(iter([ast.parse(text)]))
    assert _overrides(classes) == {"Rogue._hook"}
    assert _deeper(classes) == {"Deep", "Rogue"}
