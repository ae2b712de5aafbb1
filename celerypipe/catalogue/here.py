"""Which code a node has by its source here: what :mod:`celerypipe.catalogue.code` says once that is imported.

Nothing is imported for it, since its packages need not be installed here. What cannot be read off the text is not
known: a class that is decorated, computes its version, or has a base neither in its file nor of celerypipe's contract.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from celerypipe.catalogue.code import Located, code_at
from celerypipe.catalogue.declaration import (
    ROOTS,
    Definition,
    definition_of_mark,
    definitions_in,
    file_of_mark,
    own_version,
)
from celerypipe.catalogue.plugin import Plugin
from celerypipe.catalogue.project import PLUGIN, Project, project_at
from celerypipe.catalogue.text import name_of


def code_of_mark(mark: str) -> str:
    """Return the code of a dotted mark, as its worker would tell it; empty: it is not here, or not known."""
    place, definition = place_of_mark(mark), definition_of_mark(mark)
    return _code(*definition, place) if place is not None and definition is not None else ""


def place_of_mark(mark: str) -> Located | None:
    """Return where the source of a dotted mark is; None: it is not here."""
    found = file_of_mark(mark)
    if found is None:
        return None
    file, name, path = found
    return Located(file.absolute(), *project_at(name, file.absolute()), ".".join(path))


def code_of_plugin(plugin: Plugin) -> str:
    """Return the code of the one node of a plugin; empty: it is not known."""
    definitions = definitions_in((plugin.home / f"{plugin.mark}.py").resolve())
    found = [each for each in definitions if isinstance(each, ast.ClassDef) and each.name[0] != "_"]
    return _code(found[0], definitions, place_of_plugin(plugin, found[0].name)) if len(found) == 1 else ""


def place_of_plugin(plugin: Plugin, own: str = "*") -> Located:
    """Return where the source of a plugin's node is; ``own``: the name of its class, by default all of the file."""
    file = (plugin.home / f"{plugin.mark}.py").resolve()
    return Located(file, Project(file.parent, PLUGIN, is_folder=True), f"{PLUGIN}.{file.stem}", own)


def _code(definition: Definition, others: Sequence[Definition], place: Located) -> str:
    version = own_version(definition)
    if version:
        return f"version {version}"
    return code_at(place) if version is not None and _is_read(definition, others) else ""


def _is_read(definition: Definition, others: Sequence[Definition]) -> bool:
    """Is the text all that it is made of, besides what it imports and celerypipe?"""
    if isinstance(definition, ast.FunctionDef):
        return [name_of(each) for each in definition.decorator_list] == ["node"]
    if definition.decorator_list or definition.keywords:
        return False
    for base in map(name_of, definition.bases):
        found = [each for each in others if each.name == base and each is not definition]
        if found:
            if len(found) > 1 or not _is_read(found[0], [each for each in others if each is not definition]):
                return False
        elif base not in ROOTS:
            return False
    return bool(definition.bases)
