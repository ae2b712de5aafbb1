"""The version that a node's class declares here, read from its source: the module is not run.

A machine that only starts pipelines need not have what its workers import, and importing a model to learn a version
would take seconds. What cannot be read off the text (a version that is computed, or inherited from another module)
is not known.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from celerypipe.catalogue import syntax
from celerypipe.catalogue.modules import splits
from celerypipe.catalogue.text import name_of
from celerypipe.contract.contract import node_class

#: Classes that declare no version themselves.
ROOTS = ("Source", "Proc", "Sink", "Node")

Definition = ast.ClassDef | ast.FunctionDef


def version_of_mark(mark: str) -> str | None:
    """Return the version of a dotted mark, empty if its class declares none; None: it is not here, or not known."""
    for name, path in splits(mark):
        if name in sys.modules:
            return _version_of(sys.modules[name], path)
        file = file_of(name)
        if file is not None:
            return _version_in(definitions_in(file), path)
    return None


def file_of_mark(mark: str) -> tuple[Path, str, Sequence[str]] | None:
    """Return the file of a dotted mark, the name of its module, and the path in that; None: it is not here."""
    for name, path in splits(mark):
        file = file_of(name)
        if file is not None:
            return file, name, path
    return None


def definition_of_mark(mark: str) -> tuple[Definition, Sequence[Definition]] | None:
    """Return the source of a dotted mark's class or function, and what stands beside it; None: it is not here."""
    found = file_of_mark(mark)
    return _definition_in(definitions_in(found[0]), found[2]) if found is not None else None


def _definition_in(
    definitions: Sequence[Definition], path: Sequence[str]
) -> tuple[Definition, Sequence[Definition]] | None:
    found = [each for each in definitions if each.name == path[0]]
    if len(found) != 1:
        return None
    if len(path) == 1:
        return found[0], definitions
    return _definition_in(_in(found[0].body), path[1:]) if isinstance(found[0], ast.ClassDef) else None


def version_in_file(file: Path) -> str | None:
    """Return the version of the one node in a plugin's file; None: not known."""
    classes = [each for each in definitions_in(file) if isinstance(each, ast.ClassDef) and each.name[0] != "_"]
    return _version_of_class(classes[0], classes) if len(classes) == 1 else None


def _version_of(value: object, path: Sequence[str]) -> str | None:
    for name in path:
        value = getattr(value, name, None)
    found = node_class(value)
    return found.version if found is not None else None


def file_of(module: str) -> Path | None:
    """Return the file of a module, found as ``import`` would, without importing the packages that it is in."""
    parts = module.split(".")
    spec = _spec_of(parts[0])
    if spec is None:
        return None
    if len(parts) == 1:
        return Path(str(spec.origin)) if str(spec.origin).endswith(".py") else None
    for home in spec.submodule_search_locations or ():
        place = Path(home, *parts[1:])
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                return file
    return None


def _spec_of(top: str) -> ModuleSpec | None:
    found = (finder.find_spec(top, None, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((each for each in found if each is not None), None)


def neighbours_of(module: str) -> list[str]:
    """Return the names of the modules that lie here in the package of a module, whether it is one of them or not."""
    package, _, _ = module.rpartition(".")
    top, *rest = package.split(".")
    spec = _spec_of(top) if top else None
    homes = [Path(home, *rest) for home in (spec and spec.submodule_search_locations) or ()]
    files = [file for home in homes for file in (*home.glob("*.py"), *home.glob("*/__init__.py"))]
    names = {file.parent.name if file.parent not in homes else file.stem for file in files}
    return sorted(name for name in names if name.isidentifier() and name != "__init__")


def definitions_in(file: Path) -> list[Definition]:
    """Return the classes and functions at the top of a file; none of one that cannot be read."""
    return _in(syntax.statements_of(file))


def _in(body: Iterable[ast.stmt]) -> list[Definition]:
    return [each for each in body if isinstance(each, (ast.ClassDef, ast.FunctionDef))]


def _version_in(definitions: Sequence[Definition], path: Sequence[str]) -> str | None:
    found = _definition_in(definitions, path)
    if found is None:
        return None
    if isinstance(found[0], ast.FunctionDef):
        return _version_of_function(found[0])
    return _version_of_class(found[0], found[1])


def own_version(found: Definition) -> str | None:
    """Return the version that a class or function declares itself, empty if it declares none; None: not known."""
    if isinstance(found, ast.FunctionDef):
        return _version_of_function(found)
    return next(_assigned_versions(found), "")


def _assigned_versions(found: ast.ClassDef) -> Iterator[str | None]:
    for statement in found.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(each, ast.Name) and each.id == "version" for each in targets):
                yield _text(statement.value)


def _version_of_class(found: ast.ClassDef, others: Sequence[Definition]) -> str | None:
    for version in _assigned_versions(found):
        return version
    bases = list(map(name_of, found.bases))
    for base in bases:
        parent = next((each for each in others if each.name == base and each is not found), None)
        if isinstance(parent, ast.ClassDef):
            return _version_of_class(parent, [each for each in others if each is not found])
    return "" if any(base in ROOTS for base in bases) else None


def _version_of_function(found: ast.FunctionDef) -> str | None:
    for decorator in found.decorator_list:
        if name_of(decorator) == "node":
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else ()
            given = [each.value for each in keywords if each.arg == "version"]
            return _text(given[0]) if given else ""
    return None


def _text(value: ast.expr | None) -> str | None:
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
