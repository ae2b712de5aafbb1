"""The words of the house: a class, a type alias or a TypeVar is one thing, and its name is found in one place."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "celerypipe"
#: Calls whose result is a name for types.
MAKES_A_TYPE = frozenset({"TypeVar", "ParamSpec", "NewType", "NamedTuple", "namedtuple", "TypedDict"})


def _is_type(value: ast.expr) -> bool:
    """Does the right side of a module's ``Name = ...`` make a type, or stand for one?"""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in MAKES_A_TYPE
    return isinstance(value, ast.Subscript | ast.BinOp | ast.Name | ast.Attribute)


def _words(tree: ast.Module) -> list[str]:
    """The names of classes at any depth, and of aliases and TypeVars of the module."""
    found = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_type(value):
                found.append(name)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                found.append(name)
    # Types are written in capitals and small letters: constants in capitals, plain values in small ones.
    return [name for name in found if name.lstrip("_")[:1].isupper() and not name.isupper()]


def test_no_word_is_two_things() -> None:
    places = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        for word in _words(ast.parse(file.read_text(encoding="utf-8"))):
            places[word].append(file.relative_to(PACKAGE).as_posix())
    assert len(places) > 200
    assert {word: files for word, files in places.items() if len(files) > 1 and len(word) > 1} == {}


def test_words_are_found_however_they_are_defined() -> None:
    tree = ast.parse(
        "class One:\n    class Two: ...\nThree = TypeVar('Three')\nFour = list[int] | None\nFive: TypeAlias = str\n"
        "Six = Callable[[int], None]\nseven = list[int]\nEIGHT = str\nNine = compute()\nT = TypeVar('T')\n"
    )
    assert sorted(_words(tree)) == ["Five", "Four", "One", "Six", "Three", "Two"]
