"""The words of the house: a class, a type alias or a TypeVar is one thing, and its name is found in one place.

And those for users, who have not read the code.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

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


#: What users do not have to know: our own words, and turns of phrase that are no plain English.
INNER = re.compile(
    r"\b(?:(?:mailbox|bell|activation|lease|claim|station|course)(?:e?s)?|claimed|out of reach|belongs? into|not heard"
    r"|in vain|stands? still|goes on from|of no avail|is noted)\b",
    re.IGNORECASE,
)
ROOT = PACKAGE.parent
#: They explain such words, or are about what is inside.
ABOUT_THE_INSIDE = {"architecture.md", "decisions.md", "performance.md", "operations.md"}
GUIDES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md")),
    *sorted(file for file in (ROOT / "docs").glob("*.md") if file.name not in ABOUT_THE_INSIDE),
    *sorted(file for folder in ("examples", "worker_configs") for file in (ROOT / folder).rglob("*.md")),
    *sorted((PACKAGE / "scaffold").rglob("*.md-tpl")),
]
CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)\n]*\)", re.DOTALL)


def _inner(text: str) -> list[str]:
    return [found[0] for found in INNER.finditer(text)]


@pytest.mark.parametrize("file", GUIDES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_guide_has_an_inner_word(file: Path) -> None:
    assert _inner(CODE.sub("", file.read_text(encoding="utf-8"))) == []


def _sentences(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The texts of a module that are sentences: no docstrings, no scripts for Redis, nothing of one word."""
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    docstrings = {id(node.body[0].value) for node in documented if node.body and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if " " in text.strip() and id(node) not in docstrings:
                if "redis.call" not in text:
                    yield node.lineno, text


def test_no_message_has_an_inner_word() -> None:
    sentences = {
        f"{file.relative_to(PACKAGE).as_posix()}:{line}": text
        for file in sorted(PACKAGE.rglob("*.py"))
        for line, text in _sentences(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert len(sentences) > 1000
    assert {place: text for place, text in sentences.items() if _inner(text)} == {}


def test_inner_words_are_seen() -> None:
    text = CODE.sub(
        "", "Its mailbox, `a bell`, and\n```\nan activation\n```\nleases belong into [a room](course.md); a term."
    )
    assert _inner(text) == ["mailbox", "leases", "belong into"]
