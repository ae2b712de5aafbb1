"""The outline of a node that its workers import, and nobody here: read from its source, if that lies here.

The module is not run, and its packages need not be installed. What cannot be read off the text is not known: a class
with a decorator, with members that are not simply defined in it, or with a base that is neither in its file nor
celerypipe's own.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from celerypipe.catalogue.arguments import Argument
from celerypipe.catalogue.declaration import file_of, file_of_mark, neighbours_of
from celerypipe.catalogue.modules import splits, tops_here
from celerypipe.catalogue.outline import Outline, outline_of
from celerypipe.catalogue.plugin import Plugin
from celerypipe.catalogue.syntax import statements_of
from celerypipe.catalogue.text import Contract, contract_in, is_ours, name_of
from celerypipe.contract.contract import CALLED, node_class
from celerypipe.errors import nearest

FunctionText = ast.FunctionDef | ast.AsyncFunctionDef
#: The classes of the contract, and the type of node that comes of each.
TYPES = {"Source": "source", "Proc": "proc", "Sink": "sink"}
#: Members that decide what is told here; one that is assigned is not read, unless it is a plain value.
MEMBERS = frozenset({"__init__", "__new__", "__signature__", "stateful", *CALLED})


def outline_of_mark(mark: str) -> Outline | None:
    """Return the outline of a dotted mark by its source; None: that is not here, or not readable.

    Of what is imported already it is that of the class; that its package is, because of another node, says nothing.
    """
    for module, path in splits(mark):
        if module in sys.modules:
            value: object = sys.modules[module]
            for name in path:
                value = getattr(value, name, None)
            node = node_class(value)
            return outline_of(mark, node, {}) if node is not None and node.type else None
        if (file := file_of(module)) is not None:
            return _outline(mark, file, path, {})
    return None


def instead_of(mark: str) -> list[str] | None:
    """Return the marks that a dotted one may be a slip of; None: it is here, or may be, or no source is near it."""
    module, _, name = mark.rpartition(".")
    package, _, last = module.rpartition(".")
    if (file := file_of(mark)) is not None:  # the class was forgotten
        return [f"{mark}.{name}" for name in _offered(statements_of(file))]
    found = file_of_mark(mark)
    if found is None or (found[0].name == "__init__.py" and len(found[2]) > 1):
        near = nearest(last, neighbours_of(module)) if module not in sys.modules else ""
        if near:
            return [f"{package}.{near}.{name}"]
        top, _, rest = mark.partition(".")
        near = nearest(top, tops_here()) if top not in (*sys.modules, *tops_here()) and file_of(top) is None else ""
        return [f"{near}.{rest}"] if near else None
    body = statements_of(found[0])
    names = {each for statement in body for each in _bound(statement)}
    if not body or found[2][0] in names or names & {"*", "__getattr__"}:
        return None
    return [f"{found[1]}.{name}" for name in _offered(body)]


def _offered(body: Iterable[ast.stmt]) -> list[str]:
    """The names of what may be nodes in a body: classes, and functions below a decorator."""
    found = [each for each in body if isinstance(each, ast.ClassDef | FunctionText) and each.name[0] != "_"]
    return [each.name for each in found if isinstance(each, ast.ClassDef) or each.decorator_list]


def outline_of_plugin(plugin: Plugin) -> Outline | None:
    """Return the outline of a plugin's node by its source; None: it is not readable."""
    public = [
        each.name for each in statements_of(plugin.file) if isinstance(each, ast.ClassDef) and each.name[0] != "_"
    ]
    return _outline(plugin.mark, plugin.file, public, plugin.defaults()) if len(public) == 1 else None


def _outline(mark: str, file: Path, path: Sequence[str], defaults: Mapping[str, Any]) -> Outline | None:
    body = statements_of(file)
    try:
        contract, definition = contract_in(body), _defined(body, path[0])
        for name in path[1:]:
            if not isinstance(definition, ast.ClassDef):
                return None
            definition = _defined(definition.body, name)
        if isinstance(definition, ast.ClassDef):
            found = _of_class(mark, _members(definition, body, contract))
        else:
            found = _of_function(mark, definition, contract)
    except _Unreadable:
        return None
    more = {name: default for name, default in defaults.items() if name not in {each.name for each in found.arguments}}
    arguments = [
        replace(each, required=False, default=defaults[each.name]) if each.name in defaults else each
        for each in found.arguments
    ]
    arguments += [Argument(name, required=False, default=default) for name, default in more.items()]
    return replace(found, arguments=tuple(arguments), open=found.open and not defaults)


class _Unreadable(Exception):
    """It cannot be read off the text."""


def _defined(body: Iterable[ast.stmt], name: str) -> ast.ClassDef | FunctionText:
    """The one definition of a name in a body, which nothing else there binds."""
    found = [each for each in body if name in _bound(each)]
    if len(found) != 1 or not isinstance(found[0], ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        raise _Unreadable
    return found[0]


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds, or may bind."""
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from (each.asname or each.name.partition(".")[0] for each in names)
        case _:
            for each in ast.walk(statement):
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store | ast.Del):
                    yield each.id
                elif isinstance(each, ast.stmt) and each is not statement:
                    yield from _bound(each)


def _members(cls: ast.ClassDef, body: Sequence[ast.stmt], contract: Contract) -> tuple[str, dict[str, ast.stmt]]:
    """The type of a class, and what of the contract it and its bases in the same file define."""
    if cls.decorator_list or cls.keywords or len(cls.bases) != 1:
        raise _Unreadable
    own = {name: each for each in cls.body for name in _bound(each) if name in MEMBERS}
    if any(not isinstance(each, FunctionText | ast.Assign | ast.AnnAssign) for each in own.values()):
        raise _Unreadable
    base = cls.bases[0]
    if is_ours(base, contract) and (type_ := TYPES.get(name_of(base))):
        return type_, own
    if not isinstance(base, ast.Name):
        raise _Unreadable
    parent = _defined(body, base.id)
    if not isinstance(parent, ast.ClassDef) or parent.lineno >= cls.lineno:
        raise _Unreadable
    type_, inherited = _members(parent, body, contract)
    return type_, {**inherited, **own}


def _of_class(mark: str, found: tuple[str, dict[str, ast.stmt]]) -> Outline:
    type_, members = found
    methods: dict[str, FunctionText] = {}
    for name, each in members.items():
        if isinstance(each, FunctionText):
            if each.decorator_list:
                raise _Unreadable
            methods[name] = each
        elif name != "stateful":
            raise _Unreadable
    made = methods.get("__init__")
    if "__new__" in methods or "stateful" in methods or isinstance(made, ast.AsyncFunctionDef):
        raise _Unreadable
    return Outline(
        mark,
        type_,
        tuple(_arguments(made.args)) if made is not None else (),
        open=made is not None and made.args.kwarg is not None,
        stateful=_flag(getattr(members.get("stateful"), "value", None)),
        snapshots={"snapshot", "restore"} <= set(methods),
        batches="update_batch" in methods,
        awaits=tuple(name for name in CALLED if isinstance(methods.get(name), ast.AsyncFunctionDef)),
    )


def _of_function(mark: str, function: FunctionText, contract: Contract) -> Outline:
    if len(function.decorator_list) != 1:
        raise _Unreadable
    decorator = function.decorator_list[0]
    if not is_ours(decorator, contract) or name_of(decorator) != "node":
        raise _Unreadable
    given = {each.arg: each.value for each in decorator.keywords} if isinstance(decorator, ast.Call) else {}
    if None in given:
        raise _Unreadable
    return Outline(
        mark,
        "proc",
        tuple(_arguments(function.args)),
        open=False,
        stateful=_flag(given.get("stateful")),
        snapshots=False,
        batches=False,
        awaits=(function.name,) if isinstance(function, ast.AsyncFunctionDef) else (),
    )


def _flag(value: ast.expr | None) -> bool:
    match value:
        case None:
            return False
        case ast.Constant(value=bool(flag)):
            return flag
    raise _Unreadable


def _arguments(given: ast.arguments) -> Iterator[Argument]:
    """All arguments but the first one, as ``arguments_of`` finds them."""
    positional = [*given.posonlyargs, *given.args]
    missing = len(positional) - len(given.defaults)
    pairs = list(zip(positional, [*[None] * missing, *given.defaults], strict=True))[1:]
    named = [pair for pair in pairs if pair[0] not in given.posonlyargs]
    for argument, default in [*named, *zip(given.kwonlyargs, given.kw_defaults, strict=True)]:
        annotation = ast.unparse(argument.annotation) if argument.annotation is not None else ""
        yield Argument(argument.arg, default is None, _value(default) if default is not None else None, annotation)


@dataclass(frozen=True, slots=True)
class _Written:
    """A default that is known as text only."""

    text: str

    def __repr__(self) -> str:
        return self.text


def _value(expression: ast.expr) -> Any:
    try:
        return ast.literal_eval(expression)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _Written(ast.unparse(expression))
