"""A file of Python as text: its digest, what it imports, and what remains of it without the nodes that others are."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from blake3 import blake3

#: Above this a file is data, whatever it is called.
LARGEST = 64 * 1024 * 1024
#: Classes whose direct children do nothing by being defined.
ROOTS = frozenset({"Source", "Proc", "Sink", "Node"})
#: Words that reach what they do not name.
DYNAMIC = frozenset({"globals", "vars", "eval", "exec", "modules", "__dict__", "__subclasses__"})


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Import:
    """One import: ``level`` dots, a module (it may be empty), and the names taken out of it."""

    level: int
    module: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """What a file held when it was read, and when it was written last, in nanoseconds.

    ``tree`` is None for what is no Python text: a compiled extension, or a file that does not parse.
    """

    text: bytes
    digest: str
    written: int
    tree: ast.Module | None
    imports: tuple[Import, ...]


def source_of(file: Path) -> Source | None:
    """Return what a file holds; None if it cannot be read. Parsed once until it is written again."""
    try:
        there = file.stat()
        if there.st_size > LARGEST:
            return None
        return _read(file, there.st_mtime_ns, there.st_ctime_ns, there.st_size)
    except OSError:
        return None


@functools.lru_cache(maxsize=512)
def _read(file: Path, _modified: int, _changed: int, _size: int) -> Source:
    content = file.read_bytes()
    # Asked after it was read: if it was written in between, it is known to be younger than what was imported. Its
    # ctime, which a copy that keeps the time of its original cannot turn back.
    written = file.stat().st_ctime_ns
    if file.suffix != ".py":
        return Source(b"", blake3(content).hexdigest(), written, None, ())
    text = content.replace(b"\r\n", b"\n")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return Source(text, blake3(text).hexdigest(), written, None, ())
    return Source(text, blake3(text).hexdigest(), written, tree, tuple(_imports(tree, text)))


def without_others(source: Source, own: str) -> tuple[bytes, tuple[Import, ...]]:
    """Return a file's text and imports without the nodes in it that ``own``, a name at its top, has nothing to do with.

    Only what does nothing by being there is left out: a function under ``@node`` alone, a class right below Proc or
    Sink, whose name occurs nowhere in the rest.
    """
    if source.tree is None:
        return source.text, source.imports
    statements = source.tree.body
    others = [each for each in statements if _is_node(each) and each.name != own]
    kept = [each for each in statements if each not in others]
    if not any(getattr(each, "name", "") == own for each in kept):
        return source.text, source.imports
    named = _words(kept)
    while wanted := [each for each in others if each.name in named or named & DYNAMIC]:
        named |= _words(wanted)
        others = [each for each in others if each not in wanted]
    if not others:
        return source.text, source.imports
    lines = source.text.split(b"\n")
    for each in reversed(others):
        first = min([each.lineno, *(decorator.lineno for decorator in each.decorator_list)])
        del lines[first - 1 : each.end_lineno]
    rest = ast.Module([each for each in statements if each not in others], [])
    return b"\n".join(lines), tuple(_imports(rest, source.text))


def _is_node(statement: ast.stmt) -> TypeGuard[Definition]:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [_name(each) for each in statement.decorator_list] == ["node"]
        case ast.ClassDef():
            plain = not (statement.decorator_list or statement.keywords)
            idle = all(
                not isinstance(each, ast.Expr) or isinstance(each.value, ast.Constant) for each in statement.body
            )
            return plain and idle and bool(statement.bases) and all(_name(base) in ROOTS for base in statement.bases)
    return False


def _name(expression: ast.expr) -> str:
    match expression:
        case ast.Call():
            return _name(expression.func)
        case ast.Attribute():
            return expression.attr
        case ast.Name():
            return expression.id
    return ""


def _words(statements: Sequence[ast.stmt]) -> set[str]:
    """All names in pieces of source, also those that stand in a text; ``__all__`` names what it does not use."""
    found = set()
    for statement in statements:
        if isinstance(statement, ast.Assign) and [_name(each) for each in statement.targets] == ["__all__"]:
            continue
        for each in ast.walk(statement):
            match each:
                case ast.Name():
                    found.add(each.id)
                case ast.Attribute():
                    found.add(each.attr)
                case ast.Constant(value=str(text)):
                    found.add(text)
    return found


def _imports(tree: ast.Module, text: bytes) -> Iterator[Import]:
    for statement in _statements(tree.body):
        match statement:
            case ast.Import():
                for alias in statement.names:
                    yield Import(0, alias.name)
            case ast.ImportFrom():
                yield Import(statement.level, statement.module or "", tuple(each.name for each in statement.names))
    if b"import_module" in text or b"__import__" in text:
        yield from _called(tree)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, however deep, without a look into expressions, which takes ten times as long."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, part, []))
        for block in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
            yield from _statements(block.body)


def _called(tree: ast.Module) -> Iterator[Import]:
    """``importlib.import_module("a.b")``, where the name stands there."""
    for each in ast.walk(tree):
        if isinstance(each, ast.Call) and _name(each.func) in ("import_module", "__import__") and each.args:
            name = each.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                module = name.value.lstrip(".")
                yield Import(len(name.value) - len(module), module)
