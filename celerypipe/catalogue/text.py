"""A file of Python as text: its digest, what it imports, and what remains of it without the nodes that others are."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from celerypipe.catalogue import syntax

#: Above this a file is data, whatever it is called.
LARGEST = 64 * 1024 * 1024
#: Modules of celerypipe itself, which are as old as it is.
OURS = "celerypipe"
#: What does nothing to the class below it, or to the function that it decorates, but make it a node.
CONTRACT = frozenset({"Source", "Proc", "Sink", "Node", "node"})
#: Words that reach what they do not name.
DYNAMIC = frozenset({"globals", "vars", "eval", "exec", "modules", "__dict__", "__subclasses__"})


@dataclass(frozen=True, slots=True)
class Import:
    """One import: ``level`` dots, a module (it may be empty), and the names taken out of it."""

    level: int
    module: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceText:
    """What a file held when it was read, and when it was written last, in nanoseconds; of an extension no text."""

    text: bytes
    digest: str
    written: int
    imports: tuple[Import, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """What celerypipe's own classes and ``node`` are called in a file, and what celerypipe is."""

    names: frozenset[str]
    modules: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A statement at the top of a file: its lines, the names in it, its imports; ``node``: the name of one."""

    name: str
    node: bool
    first: int
    last: int
    words: frozenset[str]
    imports: tuple[Import, ...]


def source_of(file: Path) -> SourceText | None:
    """Return what a file holds; None if it cannot be read. Parsed once until it is written again."""
    try:
        there = file.stat()
        if there.st_size > LARGEST:
            return None
        return _read(file, there.st_mtime_ns, there.st_ctime_ns, there.st_size)
    except OSError:
        return None


@functools.lru_cache(maxsize=512)
def _read(file: Path, _modified: int, _changed: int, _size: int) -> SourceText:
    content = file.read_bytes()
    # Asked after it was read: if it was written in between, it is known to be younger than what was imported. Its
    # ctime, which a copy that keeps the time of its original cannot turn back.
    written = file.stat().st_ctime_ns
    if file.suffix != ".py":
        return SourceText(b"", blake3(content).hexdigest(), written, ())
    text = content.replace(b"\r\n", b"\n")
    statements = _parsed(text)
    return SourceText(text, blake3(text).hexdigest(), written, tuple(_imports(statements, text)))


def without_others(source: SourceText, own: str) -> tuple[bytes, tuple[Import, ...]]:
    """Return a file's text and imports without the nodes in it that ``own``, a name at its top, has nothing to do with.

    Only what does nothing by being there is left out: a function under celerypipe's ``@node`` alone, a class right
    below its Proc or Sink, whose name occurs nowhere in the rest.
    """
    parts = _parts(source.text)
    others = [part for part in parts if part.node and part.name != own]
    kept = [part for part in parts if not part.node or part.name == own]
    if not any(part.name == own for part in kept):
        return source.text, source.imports
    named = frozenset[str]().union(*(part.words for part in kept))
    while wanted := [part for part in others if part.name in named or named & DYNAMIC]:
        named = named.union(*(part.words for part in wanted))
        reached = set(wanted)
        others = [part for part in others if part not in reached]
    lines = source.text.split(b"\n")
    for part in reversed(others):
        del lines[part.first - 1 : part.last]
    left_out = set(others)
    return b"\n".join(lines), tuple(each for part in parts if part not in left_out for each in part.imports)


@functools.lru_cache(maxsize=4)
def _parts(text: bytes) -> tuple[Part, ...]:
    """The statements at the top of a file; a worker asks for its marks in order, so for one file after the other."""
    found = []
    statements = _parsed(text)
    contract = contract_in(statements)
    for each in statements:
        first = min([each.lineno, *(decorator.lineno for decorator in getattr(each, "decorator_list", []))])
        imports = tuple(_imports([each], text))
        name, last = getattr(each, "name", ""), each.end_lineno or each.lineno
        found.append(Part(name, _is_node(each, contract), first, last, frozenset(_words(each)), imports))
    return tuple(found)


def _parsed(text: bytes) -> list[ast.stmt]:
    try:
        return syntax.statements(text)
    except (SyntaxError, ValueError, RecursionError):  # what imports it says so
        return []


def contract_in(statements: Sequence[ast.stmt]) -> Contract:
    """Return the contract as the statements of a file know it."""
    names, modules, others = set[str](), set[str](), set[str]()
    for each in statements:
        match each:
            case ast.ImportFrom(module=str(module), level=0) if module.partition(".")[0] == OURS:
                names |= {alias.asname or alias.name for alias in each.names if alias.name in CONTRACT}
            case ast.Import() | ast.ImportFrom():
                for alias in each.names:
                    called = alias.asname or alias.name.partition(".")[0]
                    ours = isinstance(each, ast.Import) and alias.name.partition(".")[0] == OURS
                    (modules if ours else others).add(called)
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                others.add(each.name)
            case ast.Assign():
                others |= {target.id for target in each.targets if isinstance(target, ast.Name)}
    return Contract(frozenset(names - others), frozenset(modules - others))


def is_ours(expression: ast.expr, contract: Contract) -> bool:
    """Does an expression name something of the contract, or call it?"""
    match expression:
        case ast.Call():
            return is_ours(expression.func, contract)
        case ast.Name():
            return expression.id in contract.names
        case ast.Attribute(value=ast.Name(id=module)):
            return module in contract.modules and expression.attr in CONTRACT
    return False


def _is_node(statement: ast.stmt, contract: Contract) -> bool:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return len(statement.decorator_list) == 1 and is_ours(statement.decorator_list[0], contract)
        case ast.ClassDef():
            plain = not (statement.decorator_list or statement.keywords)
            idle = all(
                not isinstance(each, ast.Expr) or isinstance(each.value, ast.Constant) for each in statement.body
            )
            return plain and idle and bool(statement.bases) and all(is_ours(base, contract) for base in statement.bases)
    return False


def name_of(expression: ast.expr) -> str:
    """Return the last name of a class or decorator as it is written, also where it is called; empty without one."""
    match expression:
        case ast.Call():
            return name_of(expression.func)
        case ast.Attribute():
            return expression.attr
        case ast.Name():
            return expression.id
    return ""


def _words(statement: ast.stmt) -> Iterator[str]:
    """All names in a piece of source, also those that stand in a text; ``__all__`` names what it does not use."""
    if isinstance(statement, ast.Assign) and [name_of(each) for each in statement.targets] == ["__all__"]:
        return
    for each in ast.walk(statement):
        match each:
            case ast.Name():
                yield each.id
            case ast.Attribute():
                yield each.attr
            case ast.Constant(value=str(text)):
                yield text


def _imports(statements: Sequence[ast.stmt], text: bytes) -> Iterator[Import]:
    for statement in _statements(statements):
        match statement:
            case ast.Import():
                for alias in statement.names:
                    yield Import(0, alias.name)
            case ast.ImportFrom():
                yield Import(statement.level, statement.module or "", tuple(each.name for each in statement.names))
    if b"import_module" in text or b"__import__" in text:
        for statement in statements:
            yield from _called(statement)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, however deep, without a look into expressions, which takes ten times as long."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, part, []))
        for block in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
            yield from _statements(block.body)


def _called(tree: ast.stmt) -> Iterator[Import]:
    """``importlib.import_module("a.b")``, where the name stands there."""
    for each in ast.walk(tree):
        if isinstance(each, ast.Call) and name_of(each.func) in ("import_module", "__import__") and each.args:
            name = each.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                module = name.value.lstrip(".")
                yield Import(len(name.value) - len(module), module)
